"""Density and coverage of every layer and head: means over the turns in which a profile's prefill chose lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

SHARES = ("density", "coverage")
DIGITS = 2  # of percent

Cell = tuple[int, int]


class Sums:
    """One profile's shares, summed by layer and head over so many turns."""

    def __init__(self) -> None:
        """No turn yet."""
        self.turns = 0
        self._sums: dict[str, dict[Cell, float]] = {name: defaultdict(float) for name in SHARES}
        self._counts: dict[str, dict[Cell, int]] = {name: defaultdict(int) for name in SHARES}
        self._layers: set[int] = set()
        self._heads = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """One more turn, a line of heads.jsonl; what is unknown in it counts nowhere."""
        self.turns += 1
        for name in SHARES:
            for layer, shares in zip(row["layers"], row[name], strict=True):
                self._layers.add(layer)
                self._heads = max(self._heads, len(shares))
                for head, share in enumerate(shares):
                    if share is not None:
                        self._sums[name][layer, head] += share
                        self._counts[name][layer, head] += 1

    def to_json(self) -> dict[str, Any]:
        """The layers, and for each share a row of percents per layer, None where it is unknown for all of it."""
        layers = sorted(self._layers)
        return {"turns": self.turns, "layers": layers} | {name: self._rows(name, layers) for name in SHARES}

    def _rows(self, name: str, layers: Iterable[int]) -> list[list[float | None]] | None:
        if not self._counts[name]:
            return None
        return [[self._mean(name, (layer, head)) for head in range(self._heads)] for layer in layers]

    def _mean(self, name: str, cell: Cell) -> float | None:
        count = self._counts[name].get(cell)
        return round(100 * self._sums[name][cell] / count, DIGITS) if count else None


def by_dialogue(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """By dialogue and profile what its heads computed, and by profile over all dialogues, as JSON types."""
    each: dict[str, dict[str, Sums]] = defaultdict(lambda: defaultdict(Sums))
    every: dict[str, Sums] = defaultdict(Sums)
    for row in rows:
        name = str(row["profile"])
        each[str(row["conversation_id"])][name].add(row)
        every[name].add(row)
    return (
        {dialogue: {name: sums.to_json() for name, sums in found.items()} for dialogue, found in each.items()},
        {name: sums.to_json() for name, sums in every.items()},
    )
