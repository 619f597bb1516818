"""What is timed, in which order, and what a timing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.bench.kernels.clock import Clock, Work
from loopserve_cli.measure.rounds import rotated

DENSE, OWN_DENSE, CHOOSE, INDEX, ATTEND, FLEX = "dense", "own_dense", "choose", "index", "attend", "flex"
# On a CPU nothing is compiled, so a first call that took this long says enough.
LONG_MS = 200.0


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing to time. `density` is the one asked for, None for what does not depend on it."""

    name: str
    density: float | None
    work: Work


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A variant's calls before the rounds, wall clock: the first compiles and tunes, the second is None if left out."""

    rows: int
    keys: int
    variant: str
    density: float | None
    first_ms: float
    second_ms: float | None

    @property
    def ms(self) -> float:
        """What a call may be expected to take."""
        return self.first_ms if self.second_ms is None else self.second_ms


@dataclass(frozen=True, slots=True)
class Timing:
    """One variant in one round; `ms` is the mean of `repeats` calls in a row."""

    rows: int
    keys: int
    variant: str
    density: float | None
    round: int
    ms: float
    repeats: int


def warm_up(variants: Sequence[Variant], rows: int, keys: int, clock: Clock) -> list[WarmUp]:
    """Call each once, and once more unless that says nothing new."""
    found = []
    for variant in variants:
        first = clock.first_ms(variant.work)
        again = clock.device.type == "cuda" or first < LONG_MS
        second = clock.first_ms(variant.work) if again else None
        found.append(WarmUp(rows, keys, variant.name, variant.density, first, second))
    return found


def time_rounds(variants: Sequence[Variant], warm: Sequence[WarmUp], rounds: int, clock: Clock) -> list[Timing]:
    """Every variant in every round, the first to go changing."""
    warmed = list(zip(variants, warm, strict=True))
    timings = []
    for number in range(1, rounds + 1):
        for variant, first in rotated(warmed, number - 1):
            times = clock.repeats(first.ms)
            ms = clock.ms(variant.work, times)
            timings.append(Timing(first.rows, first.keys, variant.name, variant.density, number, ms, times))
    return timings


def round_ms(warm: Sequence[WarmUp], clock: Clock) -> float:
    """What a round may be expected to take."""
    return sum(first.ms * clock.repeats(first.ms) for first in warm)
