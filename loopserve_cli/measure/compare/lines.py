"""A comparison in sentences, for 80 columns: what changed beyond noise, and what else is not the same."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator

from loopserve_cli.measure.compare.change import Beside, Change, Figure
from loopserve_cli.measure.compare.comparison import Comparison
from loopserve_cli.measure.compare.shift import ROUNDING, Shift
from loopserve_cli.measure.figures import NO_INTERVAL, UNKNOWN, between, bounds, fine, mebibytes, plain, signed, whole
from loopserve_cli.measure.ratio import Ratio

WIDTH, NARROWEST = 80, 20
NOTHING = "no difference that these runs can show"
# Of an interval that holds nothing but no change, and of one that holds no change among others.
SAME, NOT_SHOWN = "as before", "no change shown"
NO_TURN = "no turn ended well in both, so nothing is compared"
APART = "The runs were not interleaved: the machine may have been slower as a whole in one of them"


def comparison_lines(comparison: Comparison, width: int = WIDTH) -> list[str]:
    """What the runs are, and a sentence for each profile, folded to 80 columns, or `width` if that is less."""
    return folded(sentences(comparison), width)


def sentences(comparison: Comparison) -> list[str]:
    """What the runs are, and a sentence for each profile, each a line however long."""
    if not comparison.changes:
        return [heading(comparison), NO_TURN]
    return [heading(comparison), *(sentence(change, comparison.beside) for change in comparison.changes)]


def context_lines(comparison: Comparison, width: int = WIDTH) -> list[str]:
    """What is not the same of the two runs, what makes them incomparable first, and what no run can tell of another."""
    return folded(context(comparison), width)


def context(comparison: Comparison) -> list[str]:
    """As `context_lines`, each a line however long."""
    said = [f"{'warning: ' if other.incomparable else ''}{other.text}" for other in comparison.others]
    return [*said, apart(comparison)]


def folded(lines: Iterable[str], width: int) -> list[str]:
    """Each line broken between words, what goes on below it set in."""
    room = max(NARROWEST, min(width, WIDTH))
    return [
        part for line in lines for part in textwrap.wrap(line, room, subsequent_indent="  ", break_on_hyphens=False)
    ]


def heading(comparison: Comparison) -> str:
    """The runs by name, and how many turns are compared and left out."""
    left_out = [
        (comparison.only_before, "only in the earlier"),
        (comparison.only_now, "only in the later"),
        (comparison.other_input, "of other input"),
    ]
    turns = "1 turn" if comparison.turns == 1 else f"{comparison.turns:,} turns"
    counts = [f"{turns} in both", *(f"{n:,} {where}" for n, where in left_out if n)]
    return f"{comparison.run.name} against {comparison.baseline.name}: {', '.join(counts)}"


def apart(comparison: Comparison) -> str:
    """That the runs were measured at two times, and what helps."""
    if comparison.beside is None:
        return f"{APART}; replay with --profile full in both, and each time stands beside full's of the same run."
    return f"{APART}; beside {comparison.beside} that cancels out."


def sentence(change: Change, beside: str | None = None) -> str:
    """What changed of a profile beyond noise."""
    parts = [part for part in _parts(change, beside) if part is not None]
    name = change.profile if change.profile == change.before else f"{change.profile} (was {change.before})"
    return f"{name}: {', '.join(parts) if parts else NOTHING}"


def _parts(change: Change, beside: str | None) -> Iterator[str | None]:
    yield _time("first token", change.first_token, change.first_token_beside, beside)
    yield _time("next tokens", change.next_tokens, change.next_tokens_beside, beside)
    yield _figure("KV MiB", change.kv_bytes, mebibytes)
    if change.keys is not None and not change.keys.shows_nothing:
        yield f"keys read {keys_changed(change.keys)}"
    if change.kl is not None and not change.kl.shows_nothing:
        yield f"KL {fine(change.kl_mean.now)}, was {fine(change.kl_mean.before)} ({kl_span(change.kl)})"
    if change.changed_answers:
        yield f"{change.changed_answers:,} of {change.answers:,} answers changed"
    yield _figure("failed turns", change.failed, whole)


def _time(name: str, ratio: Ratio | None, beside: Beside | None, whom: str | None) -> str | None:
    """A time where it changed, or where it did beside the reference; None where neither did."""
    shown = [one for one in (ratio, beside.change if beside else None) if one is not None and not one.shows_nothing]
    if ratio is None or not shown:
        return None
    more = "" if beside is None else f"; beside {whom} {in_words(beside.change)}, {span(beside.change)}"
    return f"{name} {in_words(ratio)} ({span(ratio)}{more})"


def _figure(name: str, figure: Figure, show: Callable[[float | None], str]) -> str | None:
    if None in (figure.before, figure.now) or figure.before == figure.now:
        return None
    return f"{name} {show(figure.now)}, was {show(figure.before)}"


def changed(ratio: Ratio | None, more: str = "faster", less: str = "slower") -> str:
    """How many times faster or slower, or that nothing is shown, with the interval."""
    return UNKNOWN if ratio is None else f"{in_words(ratio, more, less)} ({span(ratio)})"


def in_words(ratio: Ratio, more: str = "faster", less: str = "slower") -> str:
    """The change as a number above 1, where the interval leaves one."""
    if ratio.shows_nothing and (ratio.low is not None or ratio.ratio == 1):
        same = {plain(ratio.ratio if bound is None else bound) for bound in (ratio.low, ratio.high)} == {plain(1)}
        return SAME if same else NOT_SHOWN
    return f"{plain(ratio.ratio)}x {more}" if ratio.ratio >= 1 else f"{plain(1 / ratio.ratio)}x {less}"


def span(ratio: Ratio) -> str:
    """The interval of what `in_words` says."""
    if ratio.low is None or ratio.high is None:
        return NO_INTERVAL
    turned = ratio.ratio < 1 and not ratio.shows_nothing
    return between(1 / ratio.high, 1 / ratio.low) if turned else bounds(ratio)


def keys_changed(ratio: Ratio | None) -> str:
    """How many times fewer or more keys."""
    return changed(ratio, "fewer", "more")


def kl_changed(shift: Shift | None) -> str:
    """A change of the KL divergence with its interval."""
    if shift is None:
        return UNKNOWN
    if shift.low is None or shift.high is None or not shift.shows_nothing:
        return f"{signed(shift.mean)} ({kl_span(shift)})"
    return f"{SAME if max(-shift.low, shift.high) <= ROUNDING else NOT_SHOWN} ({kl_span(shift)})"


def kl_span(shift: Shift) -> str:
    """The interval of a change of the KL divergence."""
    if shift.low is None or shift.high is None:
        return NO_INTERVAL
    return f"{signed(shift.low)} to {signed(shift.high)}"
