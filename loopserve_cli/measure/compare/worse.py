"""Whether a run got worse than an earlier one, beyond what noise explains: the gates that need no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopserve_cli.measure.compare.change import Beside, Change, Figure
from loopserve_cli.measure.compare.lines import changed, keys_changed, kl_changed
from loopserve_cli.measure.figures import fine, number, times, whole
from loopserve_cli.measure.ratio import Ratio

if TYPE_CHECKING:
    from loopserve_cli.measure.compare.comparison import Comparison
    from loopserve_cli.stats import TurnRecord

WORSE, BESIDE = "worse", "worse_beside_full"
WORDS = (WORSE, BESIDE)


@dataclass(frozen=True, slots=True)
class WorseGate:
    """The gate `text`: one of WORDS. It fails where a profile's times, KL, keys read or failures got worse.

    A time or a KL that the baseline has and the later run does not fails as well.

    "worse" takes times as they were measured; "worse_beside_full" beside full attention's of the same run, so that a
    machine that is slower as a whole fails nothing, and full attention's own times are not looked at.
    """

    text: str

    def failures(
        self,
        records: Sequence[TurnRecord],
        profiles: Sequence[str],
        greedy: bool = True,
        against: Comparison | None = None,
    ) -> list[str]:
        """A line, with both numbers, for everything that got worse; a comparison without a turn fails as well."""
        del records, profiles, greedy  # the comparison holds them
        if against is None or not against.changes:
            return [f"gate {self.text} failed: no turn can be compared with the baseline"]
        found = [(change, line) for change in against.changes for line in self._of(change)]
        return [f"gate {self.text} failed: {change.profile} {line}" for change, line in found]

    def _of(self, change: Change) -> Iterator[str]:
        if self.text == BESIDE:
            yield from _slower_beside("first token", change.first_token_beside)
            yield from _slower_beside("next tokens", change.next_tokens_beside)
        else:
            yield from _slower("ttft_ms", change.ttft_ms, change.first_token)
            yield from _slower("tpot_ms", change.tpot_ms, change.next_tokens)
        for name, figure in {"ttft_ms": change.ttft_ms, "tpot_ms": change.tpot_ms, "kl_mean": change.kl_mean}.items():
            if change.turns and figure.now is None and figure.before is not None:
                yield f"{name} is n/a, baseline {fine(figure.before)}: what is unknown may be worse"
        if _is_worse(change.keys):
            yield f"keys_read is {_both(change.keys_read, whole)}: {keys_changed(change.keys)}"
        if change.kl is not None and not change.kl.shows_nothing and change.kl.mean > 0:
            yield f"kl_mean is {_both(change.kl_mean, fine)}: {kl_changed(change.kl)}"
        if (change.failed.now or 0) > (change.failed.before or 0):
            yield f"failed is {_both(change.failed, whole)}"


def _is_worse(ratio: Ratio | None) -> bool:
    return ratio is not None and not ratio.shows_nothing and ratio.ratio < 1


def _slower(name: str, figure: Figure, ratio: Ratio | None) -> Iterator[str]:
    if _is_worse(ratio):
        yield f"{name}.p50 is {_both(figure, number)}: {changed(ratio)}"


def _slower_beside(name: str, beside: Beside | None) -> Iterator[str]:
    if beside is not None and _is_worse(beside.change):
        yield f"{name} beside full is {times(beside.now)}, baseline {times(beside.before)}: {changed(beside.change)}"


def _both(figure: Figure, show: Callable[[float | None], str]) -> str:
    return f"{show(figure.now)}, baseline {show(figure.before)}"
