"""`--fail-if CONDITION`: limits on what a run measured, numbers and measures compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.compare.comparison import Comparison
from loopserve_cli.measure.compare.worse import BESIDE, WORDS, WorseGate
from loopserve_cli.measure.expression import (
    BASELINE,
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
from loopserve_cli.measure.gate_measures import COMPARED, Names, value_of
from loopserve_cli.measure.grammar import GrammarError, parse
from loopserve_cli.measure.reference import FULL, reference_of
from loopserve_cli.stats import TurnRecord

# The exit status of a command whose gate failed.
GATE_FAILED = 3
EXAMPLES = "ttft_ms.p50 > 500, or a.ttft_ms.p50 > 1.05 * b.ttft_ms.p50"


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate `text` fails when its condition holds."""

    text: str
    condition: Node

    def failures(
        self,
        records: Sequence[TurnRecord],
        profiles: Sequence[str],
        greedy: bool = True,
        against: Comparison | None = None,
    ) -> list[str]:
        """A line for each profile that fails; a condition without a profile is tested of every one that it fits.

        A value that is unknown fails as well: a gate that cannot be tested must not pass. `against` is the comparison
        with the baseline that its measures may be of.
        """

        def value(measure: Measure) -> float | None:
            if not measure.baseline:
                return value_of(measure, records, greedy)
            return None if against is None else _of_baseline(measure, against)

        names = {} if against is None else against.names
        found = (self._failure(condition, value) for condition in self._cases(profiles, names))
        return [line for line in found if line is not None]

    def _cases(self, profiles: Sequence[str], names: Mapping[str, str]) -> Iterator[Node]:
        """The condition for every profile that it is about, `names` being what the baseline calls them."""
        open_measures = [measure for measure in measures(self.condition) if measure.profile is None]
        if not open_measures:
            yield self.condition
            return
        compared = any(measure.metric in COMPARED for measure in open_measures)
        for profile in profiles:
            if not (compared and len(profiles) > 1 and profile == reference_of(profiles)):
                yield bound(self.condition, profile, names.get(profile))

    def _failure(self, condition: Node, value: Callable[[Measure], float | None]) -> str | None:
        """Why it fails, with every value in it; None when it passes."""
        values = {measure: value(measure) for measure in measures(condition)}
        unknown = next((measure for measure, found in values.items() if found is None), None)
        if unknown is not None:
            return f"gate {self.text} failed: {_said(unknown)} is n/a{why_unknown(unknown)}"
        known = {measure: found for measure, found in values.items() if found is not None}
        try:
            if not holds(condition, known.__getitem__):
                return None
            parts = [f"{_said(measure)} is {found:g}" for measure, found in known.items()]
            for comparison in comparisons(condition):
                sides = [side for side in (comparison.left, comparison.right) if isinstance(side, Binary)]
                parts += [f"{side} is {number(side, known.__getitem__):g}" for side in sides]
        except ZeroDivisionError:
            return f"gate {self.text} failed: it divides by zero"
        except ArithmeticError:
            return f"gate {self.text} failed: a side of it is no number"
        return f"gate {self.text} failed: {', '.join(parts)}"


def _of_baseline(measure: Measure, against: Comparison) -> float | None:
    """A measure of the earlier run, over all of its turns."""
    return value_of(measure, against.baseline.records, against.baseline.greedy is not False)


def _said(measure: Measure) -> str:
    return f"{BASELINE} {measure.profile} {measure.name}" if measure.baseline else f"{measure.profile} {measure.name}"


def why_unknown(measure: Measure) -> str:
    """What would have to be otherwise for the measure to be known."""
    few = {"p90": " (p90 needs 10 values)", "p99": " (p99 needs 100 values)"}
    return few.get(measure.stat or "", " (not measured)")


def parse_gate(text: str, profiles: Sequence[str], baseline: Sequence[str] | None = None) -> Gate | WorseGate:
    """The gate that `text` describes; raises UsageError. A measure without a statistic is its mean, or its ratio.

    `profiles` are those replayed, `baseline` the earlier run's, None without one.
    """
    if text.strip() in WORDS:
        return _worse(text.strip(), profiles, baseline)
    if not any(sign in text for sign in COMPARISONS):
        raise UsageError(f"--fail-if {text!r} is not [PROFILE.]METRIC[.STAT] OP NUMBER, like ttft_ms.p50>500")
    try:
        return Gate(text.strip(), parse(text.strip(), Names(text, profiles, baseline).read))
    except GrammarError as error:
        raise UsageError(f"--fail-if {text!r} is not a condition such as {EXAMPLES}: {error}") from None


def _worse(word: str, profiles: Sequence[str], baseline: Sequence[str] | None) -> WorseGate:
    if baseline is None:
        raise UsageError(f"--fail-if {word}: there is no baseline; give --baseline DIR")
    if word == BESIDE and not (FULL in profiles and FULL in baseline):
        raise UsageError(f"--fail-if {word}: one of the runs is without full; replay both with --profile full")
    return WorseGate(word)
