"""A head's lines as a picture: keys to the right, rows downwards, each pixel the share of its cells that lie on lines.

Verticals are counted by key, slashes by offset (row - key). Both are summed beforehand, so a pixel costs the same
however many cells it stands for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HALVES = " ▀▄█"


@dataclass(frozen=True, slots=True)
class Pixel:
    """Of a pixel's causal cells, the share on verticals and that on slashes, each from 0 to 1."""

    vertical: float
    slash: float

    @property
    def either(self) -> float:
        """The share on lines. Within a pixel the two kinds are taken to be independent; one of one cell is exact."""
        return 1 - (1 - self.vertical) * (1 - self.slash)


class Matrix:
    """The lines of `new` rows, the last of `keys` keys."""

    def __init__(self, vertical: Sequence[int], slash: Sequence[int], new: int, keys: int) -> None:
        """Ascending keys of the verticals, offsets of the slashes."""
        self.new = new
        self.keys = keys
        self._verticals = _counted(vertical, keys)
        below = _counted(slash, keys)
        self._slashes = [0, *itertools.accumulate(below)]  # at x, the sum of how many offsets are below 0 .. x - 1

    def pixels(self, width: int, height: int) -> list[list[Pixel | None]]:
        """Rows of pixels, None where no cell is causal. No more of them than there are cells."""
        columns = _edges(0, self.keys, min(width, self.keys))
        rows = _edges(self.keys - self.new, self.keys, min(height, self.new))
        return [[self._pixel(top, end, left, right) for left, right in columns] for top, end in rows]

    def _pixel(self, top: int, end: int, left: int, right: int) -> Pixel | None:
        """Of the causal cells of rows [top, end) and keys [left, right)."""
        if right <= top + 1:
            causal = (end - top) * (right - left)
            vertical = (end - top) * (self._verticals[right] - self._verticals[left])
        else:
            seen = [(row, min(right, row + 1)) for row in range(max(top, left), end)]
            causal = sum(last - left for _, last in seen)
            vertical = sum(self._verticals[last] - self._verticals[left] for _, last in seen)
        if not causal:
            return None
        slash = self._below(top, end, left - 1) - self._below(top, end, right - 1)
        return Pixel(vertical / causal, slash / causal)

    def _below(self, top: int, end: int, key: int) -> int:
        """Over rows [top, end), how many offsets are so small that they reach keys behind `key`, summed."""
        return self._slashes[max(0, end - key)] - self._slashes[max(0, top - key)]


def half_blocks(pixels: Sequence[Sequence[Pixel | None]]) -> list[str]:
    """Two rows of pixels in a line of text: filled where either kind of line is at least as frequent as on average."""
    dense = [_frequent(pixels, lambda pixel: pixel.vertical), _frequent(pixels, lambda pixel: pixel.slash)]
    dark = [[one or other for one, other in zip(*rows, strict=True)] for rows in zip(*dense, strict=True)]
    if len(dark) % 2:
        dark.append([False] * len(dark[0]))
    lines = []
    for upper, lower in zip(dark[::2], dark[1::2], strict=True):
        lines.append("".join(HALVES[one + 2 * other] for one, other in zip(upper, lower, strict=True)).rstrip())
    return lines


def _frequent(pixels: Sequence[Sequence[Pixel | None]], of: Callable[[Pixel], float]) -> list[list[bool]]:
    """Where a share is above 0 and not below its mean over all pixels."""
    known = [of(pixel) for row in pixels for pixel in row if pixel is not None]
    mean = sum(known) / len(known)
    return [[pixel is not None and of(pixel) > 0 and of(pixel) >= mean for pixel in row] for row in pixels]


def _counted(places: Sequence[int], size: int) -> list[int]:
    """For every x from 0 to `size`, how many of the places are below x."""
    there = [0] * size
    for place in places:
        there[place] = 1
    return [0, *itertools.accumulate(there)]


def _edges(first: int, last: int, parts: int) -> list[tuple[int, int]]:
    marks = [first + number * (last - first) // parts for number in range(parts + 1)]
    return list(itertools.pairwise(marks))
