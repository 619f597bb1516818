"""Density, coverage and keys read by layer and head: means over the turns in which something was left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DIGITS = 2  # of percent

Cell = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of every head in a line of heads.jsonl: its name there, that of its layers, and what it is in words."""

    name: str
    layers: str
    title: str
    heads: str


SHARES = (
    Share("density", "layers", "density", "query head"),
    Share("coverage", "layers", "coverage", "query head"),
    Share("read", "read_layers", "keys read", "key-value head"),
)


class Sums:
    """One share of one profile, summed by layer and head over so many turns."""

    def __init__(self) -> None:
        """No turn yet."""
        self._turns = 0
        self._cells: dict[Cell, tuple[float, int]] = {}

    def add(self, layers: Iterable[int], rows: Iterable[Iterable[float | None]]) -> None:
        """One more turn; what is unknown in it counts nowhere."""
        self._turns += 1
        for layer, shares in zip(layers, rows, strict=True):
            for head, share in enumerate(shares):
                total, count = self._cells.get((layer, head), (0.0, 0))
                self._cells[layer, head] = (total, count) if share is None else (total + share, count + 1)

    def to_json(self) -> dict[str, Any] | None:
        """The layers, and a row of percents for each, None where a head's is unknown; None where all are."""
        if not any(count for _, count in self._cells.values()):
            return None
        layers = sorted({layer for layer, _ in self._cells})
        heads = 1 + max(head for _, head in self._cells)
        rows = [[self._mean((layer, head)) for head in range(heads)] for layer in layers]
        return {"turns": self._turns, "layers": layers, "rows": rows}

    def _mean(self, cell: Cell) -> float | None:
        total, count = self._cells.get(cell, (0.0, 0))
        return round(100 * total / count, DIGITS) if count else None


OfProfiles = dict[str, dict[str, Any]]


def by_dialogue(lines: Iterable[Mapping[str, Any]]) -> tuple[dict[str, OfProfiles], OfProfiles]:
    """By dialogue, profile and share what the heads did, and by profile and share over all dialogues."""
    each: dict[str, dict[str, dict[str, Sums]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(Sums)))
    every: dict[str, dict[str, Sums]] = defaultdict(lambda: defaultdict(Sums))
    for line in lines:
        name = str(line["profile"])
        for share in SHARES:
            if layers := line.get(share.layers):
                for sums in (each[str(line["conversation_id"])][name], every[name]):
                    sums[share.name].add(layers, line[share.name])
    return {dialogue: _plain(found) for dialogue, found in each.items()}, _plain(every)


def _plain(found: Mapping[str, Mapping[str, Sums]]) -> OfProfiles:
    return {name: {share: sums.to_json() for share, sums in shares.items()} for name, shares in found.items()}
