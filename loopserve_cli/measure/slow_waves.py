"""How far the mean of a few turns may lie from the true one, from the slowest waves in them.

A slow minute of the machine lies over several turns on end, so the spread of single turns says too little of how far
their mean is off, and few turns are no blocks to draw from. What moves a mean is what is slow: a run's first cosines
say how much of that there is, and how few they are is made good by Student's t (Lazarus, Lewis, Stock and Watson, "HAR
Inference: Recommendations for Practice", 2018: equal-weighted cosines, as many as they advise). Where the slower of
them are the larger, those count alone. Where a dialogue ran several times, its repeats differ by the machine alone: the
waves are then those of what a turn took beside the same turn's mean, and the slowest of them is the repeat's own level,
of which a single run knows nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

import numpy as np

from loopserve_cli.measure.student import CONFIDENCE, quantile

# A dialogue's runs: for each repeat, the value of every turn.
Runs = Sequence[Mapping[int, float]]
# Turns that vary by so many times what noise alone would make of their means differ in truth.
DIFFER = 2.0


@dataclass(frozen=True, slots=True)
class Squares:
    """A sum of squares, and of how many independent ones it is."""

    total: float = 0.0
    degrees: int = 0

    def __add__(self, other: Squares) -> Squares:
        return Squares(self.total + other.total, self.degrees + other.degrees)

    @property
    def mean(self) -> float:
        """The variance of a single value."""
        return self.total / self.degrees if self.degrees else 0.0


def half_width(dialogues: Sequence[Runs]) -> float | None:
    """Half the 95% interval of the mean over all values; None where each dialogue has one value.

    Dialogues are not held against each other: what they differ by is no noise.
    """
    by_wave = itertools.zip_longest(*map(_machine, dialogues), fillvalue=Squares())
    slower = list(itertools.accumulate(sum(squares, Squares()) for squares in by_wave))
    if not slower or not slower[-1].degrees:
        return None
    of_mean = max(squares.mean for squares in slower) / sum(len(run) for runs in dialogues for run in runs)
    share = (1 + CONFIDENCE) / 2
    return math.hypot(
        quantile(slower[-1].degrees, share) * math.sqrt(of_mean),
        NormalDist().inv_cdf(share) * math.sqrt(_of_turns(dialogues)),
    )


def waves(values: Sequence[float], count: int) -> list[float]:
    """The `count` slowest orthonormal cosines of a run, its level the first: each as large as a single value, if noise.

    As many as there are values, where these are fewer.
    """
    places = np.pi * (np.arange(len(values)) + 0.5) / len(values)
    which = np.arange(min(count, len(values)))
    found: list[float] = (np.cos(np.outer(which, places)) @ np.array(values) * math.sqrt(2 / len(values))).tolist()
    return [found[0] / math.sqrt(2), *found[1:]]


def advised(turns: int) -> int:
    """How many waves: 0.4 times the turns to the power of two thirds, and one at least."""
    return max(1, round(0.4 * turns ** (2 / 3)))


def _machine(runs: Runs) -> list[Squares]:
    """The slow waves of what is noise in a dialogue's runs, the slowest first."""
    if len(runs) == 1:
        values = list(runs[0].values())
        mean = fmean(values)
        found = waves([value - mean for value in values], advised(len(values)) + 1)
        return [Squares(), *(Squares(wave**2, 1) for wave in found[1:])]
    means = _turn_means(runs)
    # Two repeats have one difference between them, so one wave more is looked at.
    more = int(len(runs) == 2)
    each = [waves([value - means[turn] for turn, value in run.items()], advised(len(run)) + more) for run in runs]
    # The repeats of a turn add up to nothing beside their mean, so one of them is not its own.
    return [
        Squares(math.fsum(wave**2 for wave in alike), max(1, len(alike) - 1))
        for place in range(max(map(len, each)))
        if (alike := [found[place] for found in each if place < len(found)])
    ]


def _of_turns(dialogues: Sequence[Runs]) -> float:
    """The variance of the mean that comes from turns differing in truth, over dialogues that ran several times."""
    found, turns = 0.0, 0
    for runs in dialogues:
        means = _turn_means(runs)
        turns += len(means)
        if len(runs) < 2 or len(means) < 2:
            continue
        noise = _single(runs, means).mean / len(runs)
        seen = variance(means.values())
        found += len(means) * (seen - noise if seen > DIFFER * noise else 0.0)
    return found / turns**2


def _single(runs: Runs, means: Mapping[int, float]) -> Squares:
    """The spread of single values beside their turn's mean and their repeat's level."""
    total = 0.0
    for run in runs:
        beside = [value - means[turn] for turn, value in run.items()]
        level = fmean(beside)
        total += math.fsum((value - level) ** 2 for value in beside)
    return Squares(total, (len(runs) - 1) * (len(means) - 1))


def _turn_means(runs: Runs) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in runs:
        for turn, value in run.items():
            values.setdefault(turn, []).append(value)
    return {turn: fmean(found) for turn, found in values.items()}
