"""What a gate may name: the measures of a run, by [baseline.][PROFILE.]METRIC[.STAT], and their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.expression import BASELINE, Measure
from loopserve_cli.measure.ratio import Ratio
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


def metrics() -> list[str]:
    """Every measure of the record that is a number, and the gaps between tokens."""
    numbers = ("int | None", "float | None")
    return [f.name for f in fields(TurnRecord) if f.type in numbers and f.name not in LABELS] + ["itl_ms"]


def known_metrics() -> list[str]:
    """Every name that may stand as a METRIC."""
    return [*metrics(), *COUNTS, *RATIOS, *SHARES]


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


@dataclass(frozen=True, slots=True)
class Names:
    """The names that the gate `text` may use: `profiles` that are replayed, and a baseline's, None without one."""

    text: str
    profiles: Sequence[str]
    baseline: Sequence[str] | None = None

    def read(self, source: str, place: int) -> tuple[Measure, int] | None:
        """The measure at a place, and where it ends; None where no name begins. Raises UsageError for unknown names.

        Profiles may hold dots and signs of their own.
        """
        of_baseline = source.startswith(f"{BASELINE}.", place) and not (
            self.baseline is None and BASELINE in self.profiles
        )
        if of_baseline and self.baseline is None:
            raise self._error("there is no baseline; give --baseline DIR")
        profiles = self.profiles if not of_baseline or self.baseline is None else self.baseline
        start = place + len(BASELINE) + 1 if of_baseline else place
        profile = _first_of(profiles, source, start)
        named = start if profile is None else start + len(profile) + 1
        match = NAME.match(source, named)
        if match is None:
            return None
        metric, dot, stat = match[0].partition(".")
        if metric not in known_metrics():
            raise self._unknown(source, named, profile, profiles, of_baseline)
        found = Measure(profile, metric, self._stat(metric, stat if dot else None), of_baseline)
        return found, match.end()

    def _unknown(
        self, source: str, place: int, profile: str | None, profiles: Sequence[str], of_baseline: bool
    ) -> UsageError:
        """What is wrong with the name at a place, which begins with no metric: a profile, or the metric itself."""
        meant = None if profile is not None else _profile_like(source, place)
        if meant is not None:
            where = "in the baseline; there" if of_baseline else "replayed; replayed"
            return self._error(f"profile {meant!r} is not {where}: {', '.join(profiles)}{hint(meant, profiles)}")
        match = NAME.match(source, place)
        assert match is not None
        metric, dot, _ = match[0].partition(".")
        near = hint(metric, known_metrics())
        if place and profile is None and not of_baseline and not dot:
            return self._error(f"{metric!r} is not a number{near}")
        return self._error(f"unknown measure {metric!r}{near}; known: {', '.join(known_metrics())}")

    def _stat(self, metric: str, given: str | None) -> str | None:
        """The statistic asked for, or the measure's usual one; raises UsageError."""
        if metric in (*COUNTS, *SHARES):
            if given is not None:
                raise self._error(f"{metric} is one number and takes no statistic")
            return None
        stats = RATIO_STATS if metric in RATIOS else STATS
        if given is not None and given not in stats:
            raise self._error(f"unknown statistic {given!r}{hint(given, stats)}; known: {', '.join(stats)}")
        return stats[0] if given is None else given

    def _error(self, what: str) -> UsageError:
        return UsageError(f"--fail-if {self.text!r}: {what}")


def _first_of(profiles: Sequence[str], source: str, place: int) -> str | None:
    """The profile that stands at a place with a dot behind it, the longest of several."""
    alike = (name for name in profiles if source.startswith(f"{name}.", place))
    return max(alike, key=len, default=None)


def _profile_like(source: str, place: int) -> str | None:
    """What stands where a profile would: a name, with settings changed or not, before a dot and a metric.

    A name may hold signs, a-shape, which a sum holds too: only what has no space around them is one.
    """
    known = "|".join(map(re.escape, sorted(known_metrics(), key=len, reverse=True)))
    setting = r"\+[A-Za-z_][\w.]*=[^\s()<>=!*]+?"
    match = re.compile(rf"([\w./-]+?(?:{setting})*)\.(?:{known})(?![\w])").match(source, place)
    return match[1] if match else None
