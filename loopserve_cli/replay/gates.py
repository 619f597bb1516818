"""`--fail-if CONDITION`: limits on what a replay measured, numbers and measures compared with each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.expression import (
    COMPARISONS,
    Binary,
    Measure,
    Node,
    bound,
    comparisons,
    holds,
    measures,
    number,
)
from loopserve_cli.measure.grammar import GrammarError, parse
from loopserve_cli.measure.ratio import Ratio
from loopserve_cli.measure.reference import reference_of
from loopserve_cli.measure.verdict import verdicts
from loopserve_cli.nearest import hint
from loopserve_cli.stats import TurnRecord, spread_of

STATS = ("mean", "p50", "p90", "p99", "n")
COUNTS = ("turns", "failed")
RATIOS = ("first_token", "next_tokens")
RATIO_STATS = ("ratio", "low", "high", "pairs")
SHARES = ("same_share",)
# Against the profile that the others are compared with: they mean nothing of that one itself.
COMPARED = (*RATIOS, *SHARES, "agreement", "kl_mean", "nll_change", "diverged_at")
LABELS = ("turn", "seed", "repeat")
NAME = re.compile(r"[A-Za-z_][\w.]*")
EXAMPLES = "ttft_ms.p50 > 500, or a.ttft_ms.p50 > 1.05 * b.ttft_ms.p50"


def metrics() -> list[str]:
    """Every measure of the record that is a number, and the gaps between tokens."""
    numbers = ("int | None", "float | None")
    return [f.name for f in fields(TurnRecord) if f.type in numbers and f.name not in LABELS] + ["itl_ms"]


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate `text` fails when its condition holds."""

    text: str
    condition: Node

    def failures(self, records: Sequence[TurnRecord], profiles: Sequence[str], greedy: bool = True) -> list[str]:
        """A line for each profile that fails; a condition without a profile is tested of every one that it fits.

        A value that is unknown fails as well: a gate that cannot be tested must not pass.
        """
        found = (self._failure(condition, records, greedy) for condition in self._cases(profiles))
        return [line for line in found if line is not None]

    def _cases(self, profiles: Sequence[str]) -> Iterator[Node]:
        """The condition for every profile that it is about."""
        open_measures = [measure for measure in measures(self.condition) if measure.profile is None]
        if not open_measures:
            yield self.condition
            return
        compared = any(measure.metric in COMPARED for measure in open_measures)
        for profile in profiles:
            if not (compared and len(profiles) > 1 and profile == reference_of(profiles)):
                yield bound(self.condition, profile)

    def _failure(self, condition: Node, records: Sequence[TurnRecord], greedy: bool) -> str | None:
        """Why it fails, with every value in it; None when it passes."""
        values = {measure: value_of(measure, records, greedy) for measure in measures(condition)}
        unknown = next((measure for measure, value in values.items() if value is None), None)
        if unknown is not None:
            return f"gate {self.text} failed: {_said(unknown)} is n/a{why_unknown(unknown)}"
        known = {measure: value for measure, value in values.items() if value is not None}
        try:
            if not holds(condition, known.__getitem__):
                return None
            parts = [f"{_said(measure)} is {value:g}" for measure, value in known.items()]
            for comparison in comparisons(condition):
                sides = [side for side in (comparison.left, comparison.right) if isinstance(side, Binary)]
                parts += [f"{side} is {number(side, known.__getitem__):g}" for side in sides]
        except ZeroDivisionError:
            return f"gate {self.text} failed: it divides by zero"
        return f"gate {self.text} failed: {', '.join(parts)}"


def _said(measure: Measure) -> str:
    return f"{measure.profile} {measure.name}"


def value_of(measure: Measure, records: Sequence[TurnRecord], greedy: bool = True) -> float | None:
    """A measure over one profile's turns, those that failed left out; None when unknown."""
    if measure.metric in (*RATIOS, *SHARES):
        verdict = next((v for v in verdicts(records, greedy) if v.profile == measure.profile), None)
        found: float | Ratio | None = getattr(verdict, measure.metric, None)
        return getattr(found, measure.stat or "ratio") if isinstance(found, Ratio) else found
    own = [r for r in records if r.profile == measure.profile]
    good = [r for r in own if r.error is None]
    if measure.metric in COUNTS:
        return len(own) if measure.metric == "turns" else len(own) - len(good)
    spread = spread_of(good, measure.metric)
    if spread is None or measure.stat is None:
        return None
    value: float | None = getattr(spread, measure.stat)
    return value


def why_unknown(measure: Measure) -> str:
    """What would have to be otherwise for the measure to be known."""
    few = {"p90": " (p90 needs 10 values)", "p99": " (p99 needs 100 values)"}
    return few.get(measure.stat or "", " (not measured)")


def parse_gate(text: str, profiles: Sequence[str]) -> Gate:
    """The gate that `text` describes; raises UsageError. A measure without a statistic is its mean, or its ratio."""

    def read(source: str, place: int) -> tuple[Measure, int] | None:
        return _read_measure(text, source, place, profiles)

    if not any(sign in text for sign in COMPARISONS):
        raise UsageError(f"--fail-if {text!r} is not [PROFILE.]METRIC[.STAT] OP NUMBER, like ttft_ms.p50>500")
    try:
        return Gate(text.strip(), parse(text.strip(), read))
    except GrammarError as error:
        raise UsageError(f"--fail-if {text!r} is not a condition such as {EXAMPLES}: {error}") from None


def _read_measure(text: str, source: str, place: int, profiles: Sequence[str]) -> tuple[Measure, int] | None:
    """The measure at a place; profiles may hold dots and signs of their own. Raises UsageError for unknown names."""
    profile = next(
        (name for name in sorted(profiles, key=len, reverse=True) if source.startswith(f"{name}.", place)), None
    )
    start = place if profile is None else place + len(profile) + 1
    match = NAME.match(source, start)
    if match is None:
        return None
    metric, dot, stat = match[0].partition(".")
    known = [*metrics(), *COUNTS, *RATIOS, *SHARES]
    if metric not in known and stat.partition(".")[0] in known:
        near = hint(metric, profiles)
        raise UsageError(
            f"--fail-if {text!r}: profile {metric!r} is not replayed; replayed: {', '.join(profiles)}{near}"
        )
    if metric not in known and place and profile is None and not dot:
        raise UsageError(f"--fail-if {text!r}: {metric!r} is not a number{hint(metric, known)}")
    if metric not in known:
        raise UsageError(
            f"--fail-if {text!r}: unknown measure {metric!r}{hint(metric, known)}; known: {', '.join(known)}"
        )
    return Measure(profile, metric, _stat(text, metric, stat if dot else None)), match.end()


def _stat(text: str, metric: str, given: str | None) -> str | None:
    """The statistic asked for, or the measure's usual one; raises UsageError."""
    if metric in (*COUNTS, *SHARES):
        if given is not None:
            raise UsageError(f"--fail-if {text!r}: {metric} is one number and takes no statistic")
        return None
    stats = RATIO_STATS if metric in RATIOS else STATS
    if given is not None and given not in stats:
        raise UsageError(
            f"--fail-if {text!r}: unknown statistic {given!r}{hint(given, stats)}; known: {', '.join(stats)}"
        )
    return stats[0] if given is None else given
