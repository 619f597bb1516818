"""`--fail-if [PROFILE.]METRIC[.STAT] OP NUMBER`: a limit on what a replay measured."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from loopserve_cli.errors import UsageError
from loopserve_cli.stats import TurnRecord, spread_of

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
STATS = ("mean", "p50", "p90", "p99", "n")
COUNTS = ("turns", "failed")
LABELS = ("turn", "seed", "repeat")
EXPRESSION = re.compile(r"(?P<what>[\w.-]+)\s*(?P<op>>=|<=|==|!=|>|<)\s*(?P<number>[^<>=!]+)")


def metrics() -> list[str]:
    """Every measure of the record that is a number, and the gaps between tokens."""
    numbers = ("int | None", "float | None")
    return [f.name for f in fields(TurnRecord) if f.type in numbers and f.name not in LABELS] + ["itl_ms"]


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate `text` fails when `metric` (its `stat`; None for a count) stands in relation `op` to `number`."""

    text: str
    profile: str | None
    metric: str
    stat: str | None
    op: str
    number: float

    def failures(self, records: Sequence[TurnRecord], profiles: Sequence[str]) -> list[str]:
        """A line for each profile that fails; without a profile in the gate each one is tested.

        A value that is unknown fails as well: a gate that cannot be tested must not pass.
        """
        name = f"{self.metric}.{self.stat}" if self.stat else self.metric
        lines = []
        for profile in [self.profile] if self.profile else profiles:
            value = self.value([r for r in records if r.profile == profile])
            if value is None:
                lines.append(f"gate {self.text} failed: {profile} {name} is n/a{self._why_unknown()}")
            elif OPERATORS[self.op](value, self.number):
                lines.append(f"gate {self.text} failed: {profile} {name} is {value:g}")
        return lines

    def value(self, records: Sequence[TurnRecord]) -> float | None:
        """The measure over one profile's turns, those that failed left out; None when unknown."""
        good = [r for r in records if r.error is None]
        if self.metric == "turns":
            return len(records)
        if self.metric == "failed":
            return len(records) - len(good)
        spread = spread_of(good, self.metric)
        if spread is None or self.stat is None:
            return None
        value: float | None = getattr(spread, self.stat)
        return value

    def _why_unknown(self) -> str:
        few = {"p90": " (p90 needs 10 values)", "p99": " (p99 needs 100 values)"}
        return few.get(self.stat or "", " (not measured)")


def parse_gate(text: str, profiles: Sequence[str]) -> Gate:
    """The gate that `text` describes; raises UsageError. A measure without a statistic is its mean."""
    profile, rest = _take_profile(text.strip(), profiles)
    match = EXPRESSION.fullmatch(rest)
    if match is None:
        raise UsageError(f"--fail-if {text!r} is not [PROFILE.]METRIC[.STAT] OP NUMBER, like ttft_ms.p50>500")
    metric, dot, stat = match["what"].partition(".")
    known = [*metrics(), *COUNTS]
    if metric not in known and stat.partition(".")[0] in known:
        raise UsageError(f"--fail-if {text!r}: profile {metric!r} is not replayed; replayed: {', '.join(profiles)}")
    if metric not in known:
        raise UsageError(f"--fail-if {text!r}: unknown measure {metric!r}; known: {', '.join(known)}")
    if metric in COUNTS and dot:
        raise UsageError(f"--fail-if {text!r}: {metric} is a count and takes no statistic")
    if dot and stat not in STATS:
        raise UsageError(f"--fail-if {text!r}: unknown statistic {stat!r}; known: {', '.join(STATS)}")
    try:
        number = float(match["number"])
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise UsageError(f"--fail-if {text!r}: {match['number']!r} is not a number")
    return Gate(text.strip(), profile, metric, None if metric in COUNTS else stat or "mean", match["op"], number)


def _take_profile(text: str, profiles: Sequence[str]) -> tuple[str | None, str]:
    """The profile that `text` begins with, if any, and the rest; names may hold dots and signs of their own."""
    for profile in sorted(profiles, key=len, reverse=True):
        if text.startswith(f"{profile}."):
            return profile, text[len(profile) + 1 :]
    return None, text
