"""How far a mean over measured turns may lie from the true one: a bootstrap that draws as the turns were drawn.

A slow minute of the machine, and a long stretch of the dialogue, are shared by turns that follow each other, so turns
are drawn in blocks of neighbours, going round at the end (Politis and Romano, "A circular block-resampling procedure
for stationary data", 1992), as long as the cube root of the dialogue. Twice: a turn with all its repeats, which says
what other turns might give; and every repeat's turns alone, which says what the machine does. The wider holds. Of
eight dialogues or more each is drawn whole. Percentiles, widened for few units (`student.widening`).
tests/test_interval.py holds how often the true value is inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loopserve_cli.measure.student import CONFIDENCE, widening

DIALOGUES_DRAWN = 8
FEWEST_TURNS = 4
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


def interval(values: Mapping[Place, float]) -> tuple[float, float] | None:
    """Where the true mean lies with 95% confidence, the same each time it is asked; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values.values()) / len(values)
    generator = np.random.default_rng(SEED)
    tails = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
    lows, highs = [], []
    for units in _ways(values):
        low, high = np.percentile(units.means(DRAWS, generator), tails)
        wider = widening(units.drawn)
        lows.append(min(mean, mean - wider * (mean - float(low))))
        highs.append(max(mean, mean + wider * (float(high) - mean)))
    return min(lows), max(highs)


def _ways(values: Mapping[Place, float]) -> Iterator[Units]:
    """The ways to draw: dialogues where there are many; else turns with all repeats, and turns of each repeat."""
    turns: dict[str, dict[int, list[float]]] = {}
    runs: dict[tuple[str, int], dict[int, list[float]]] = {}
    for place, value in sorted(values.items()):
        turns.setdefault(place.dialogue, {}).setdefault(place.turn, []).append(value)
        runs.setdefault((place.dialogue, place.repeat), {}).setdefault(place.turn, []).append(value)
    if len(turns) >= DIALOGUES_DRAWN:
        whole = [[value for turn in dialogue.values() for value in turn] for dialogue in turns.values()]
        yield Units(_totals(whole), drawn=len(whole))
        return
    count = sum(len(dialogue) for dialogue in turns.values())
    if count >= FEWEST_TURNS:
        yield _blocks([list(dialogue.values()) for dialogue in turns.values()])
    if count < FEWEST_TURNS or len(runs) > len(turns):
        yield _blocks([list(run.values()) for run in runs.values()])


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
