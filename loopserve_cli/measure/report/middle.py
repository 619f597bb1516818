"""The middle of a few measurements, and how far it may be off."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.measure.student import CONFIDENCE
from loopserve_cli.stats import percentile

# With fewer no two of the values hold the true median between them in 95% of runs: 1 - 2 / 2^5 is less.
FEWEST = 6


@dataclass(frozen=True, slots=True)
class Middle:
    """A median of `count` values, with what the interval around it goes from and to."""

    median: float
    low: float
    high: float
    count: int


def of_repeats(values: Sequence[float]) -> Middle:
    """The median: with its 95% interval from `FEWEST` values on, and below that from the lowest to the highest.

    The interval is that of the sign test (Conover, Practical Nonparametric Statistics, 1999, 3.2), which asks nothing
    of how times are distributed: the median lies between the k-th value from either end unless fewer than k fall on
    one side of it, of n tosses of a coin.
    """
    ordered = sorted(values)
    place = rank(len(ordered)) - 1
    return Middle(statistics.median(ordered), ordered[place], ordered[-1 - place], len(ordered))


def rank(count: int) -> int:
    """Which value from either end bounds the interval, 1 being the outermost."""
    tail, place = 0.0, 0
    while place < count // 2 and (tail := tail + math.comb(count, place) / 2**count) <= (1 - CONFIDENCE) / 2:
        place += 1
    return max(1, place)


def of_dialogues(values: Sequence[float]) -> Middle:
    """The median, and what the middle half of the values goes from and to."""
    ordered = sorted(values)
    return Middle(statistics.median(ordered), percentile(ordered, 0.25), percentile(ordered, 0.75), len(ordered))
