"""How far a mean over measured turns may lie from the true one: a bootstrap that draws as the turns were drawn.

A slow minute of the machine, and a long stretch of the dialogue, are shared by turns that follow each other, so turns
are drawn in blocks of neighbours, going round at the end (Politis and Romano, "A circular block-resampling procedure
for stationary data", 1992), as long as the cube root of the dialogue. Twice: a turn with all its repeats, which says
what other turns might give; and every repeat's turns alone, which says what the machine does. The wider holds. Of
eight dialogues or more each is drawn whole. Percentiles, widened for few units (`student.widening`). Of fewer than
eight dialogues with so few turns that hardly a block is in them nothing is drawn: see `slow_waves`.
tests/test_interval.py holds how often the true value is inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loopserve_cli.measure.slow_waves import half_width
from loopserve_cli.measure.student import CONFIDENCE, widening

DIALOGUES_DRAWN = 8
FEWEST_TURNS = 4
# A repeat of fewer turns, on average, is too short to draw blocks from.
FEWEST_DRAWN = 24
DRAWS = 2000
SEED = 0
# So many drawn units are in memory at a time.
CHUNK = 2**21


class Place(NamedTuple):
    """Where a turn was measured."""

    dialogue: str
    repeat: int
    turn: int


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn with replacement, `drawn` at a time: each unit's sum and its number of values, [2, units]."""

    totals: NDArray[np.float64]
    drawn: int

    def means(self, draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """The mean of every draw, [draws]."""
        at_once = max(1, CHUNK // self.drawn)
        found = []
        for start in range(0, draws, at_once):
            which = generator.integers(self.totals.shape[1], size=(min(at_once, draws - start), self.drawn))
            sums, sizes = self.totals[:, which].sum(axis=2)
            found.append(sums / sizes)
        return np.concatenate(found)


def interval(values: Mapping[Place, float], timed: bool = True) -> tuple[float, float] | None:
    """Where the true mean lies with 95% confidence, the same each time it is asked; None for fewer than two values.

    What is not `timed` is the same whatever the machine does meanwhile: then only turns are drawn, however few.
    """
    if len(values) < 2:
        return None
    mean = math.fsum(values.values()) / len(values)
    lows, highs = zip(*_intervals(values, mean, timed), strict=True)
    return min(lows), max(highs)


def _intervals(values: Mapping[Place, float], mean: float, timed: bool) -> Iterator[tuple[float, float]]:
    """By each way to look at them: dialogues where there are many; else turns with all repeats, and each repeat."""
    runs: dict[str, dict[int, dict[int, float]]] = {}
    turns: dict[str, dict[int, list[float]]] = {}
    for place, value in sorted(values.items()):
        runs.setdefault(place.dialogue, {}).setdefault(place.repeat, {})[place.turn] = value
        turns.setdefault(place.dialogue, {}).setdefault(place.turn, []).append(value)
    generator = np.random.default_rng(SEED)
    if len(turns) >= DIALOGUES_DRAWN:
        whole = [[value for turn in dialogue.values() for value in turn] for dialogue in turns.values()]
        yield _drawn(Units(_totals(whole), drawn=len(whole)), mean, generator)
        return
    repeats = [run for dialogue in runs.values() for run in dialogue.values()]
    if timed and len(values) < FEWEST_DRAWN * len(repeats):
        half = half_width([list(dialogue.values()) for dialogue in runs.values()])
        if half is not None:
            yield mean - half, mean + half
            return
    yield _drawn(_blocks([list(dialogue.values()) for dialogue in turns.values()]), mean, generator)
    if timed and len(repeats) > len(turns):
        yield _drawn(_blocks([[[value] for value in run.values()] for run in repeats]), mean, generator)


def _drawn(units: Units, mean: float, generator: np.random.Generator) -> tuple[float, float]:
    """The percentiles of the means of many draws, widened for few units."""
    tails = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
    low, high = np.percentile(units.means(DRAWS, generator), tails)
    wider = widening(units.drawn)
    return min(mean, mean - wider * (mean - float(low))), max(mean, mean + wider * (float(high) - mean))


def _blocks(sequences: Sequence[Sequence[Sequence[float]]]) -> Units:
    """A block from every turn on: sequences of turns, a turn being its values."""
    count = sum(map(len, sequences))
    mean = count / len(sequences)
    # At least four blocks are drawn of what is there, or the percentiles are those of a coin.
    length = max(1, min(math.ceil(mean ** (1 / 3)), count // 4)) if mean >= FEWEST_TURNS else 1
    found = [_from_each_on(_totals(sequence), min(length, len(sequence))) for sequence in sequences]
    return Units(np.concatenate(found, axis=1), drawn=max(2, round(count / length)))


def _from_each_on(totals: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Sums and sizes of so many turns from every turn on, going round at the end."""
    return np.sum([np.roll(totals, -step, axis=1) for step in range(length)], axis=0, dtype=np.float64)


def _totals(groups: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Each group's sum and size, [2, groups]."""
    return np.array([[math.fsum(group) for group in groups], [len(group) for group in groups]])
