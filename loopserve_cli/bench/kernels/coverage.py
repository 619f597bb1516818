"""How much attention chosen lines really hold: over all rows of an input, not only over those that were sampled.

Exact, in blocks of rows: for row i the mass on the lines is sum_key P[i, key] over the keys on a vertical or a slash,
P as in `loopserve_kernels.lines`. Nothing of size [n, N] is ever held, only ROWS_AT_ONCE rows of one group's heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.executed import first_dense_row
from loopserve_kernels.tile_index import Index

ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Coverage:
    """Mean share of all rows' attention, float64 [H]: on the chosen lines, and on the cells that are executed."""

    lines: Tensor
    executed: Tensor


def coverage_of_lines(
    query: Tensor, key: Tensor, scaling: float, lines: Lines, index: Index, dense_rows: int, rows_at_once: int = 0
) -> Coverage:
    """For query [H, n, D], the last n of key [G, N, D]; lines and index of P line heads.

    A head that its lines flag dense holds everything; one that only the index flags executes everything. The last
    `dense_rows` rows execute everything, as in `vertical_slash`.
    """
    heads, rows, _ = query.shape
    groups, keys, _ = key.shape
    marks = _Marks(lines, index, rows, keys, dense_rows)
    step = rows_at_once or ROWS_AT_ONCE
    assert step % index.rows_per_block == 0
    precision = torch.float64 if query.dtype == torch.float64 else torch.float32
    sums = torch.zeros(2, heads, dtype=torch.float64, device=query.device)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        for group in range(groups):
            own = range(group * heads // groups, (group + 1) * heads // groups)
            packed = query[own.start : own.stop, first:last].to(precision)
            weights = _weights(packed, key[group, : keys - rows + last].to(precision), scaling)
            for head, part in zip(own, weights, strict=True):
                plan = head * marks.plans // heads
                sums[0, head] += _mass_on(part, marks.lines(plan, first, last))
                sums[1, head] += _mass_on(_by_block(part, index.rows_per_block), marks.executed(plan, first, last))
    return Coverage(*(sums / rows))


def _weights(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Attention weights [s, r, K] of query [s, r, D], whose rows are the last r of key [K, D]."""
    rows, keys = query.shape[1], key.shape[0]
    scores = (query * scaling) @ key.T
    ahead = torch.ones(rows, rows, dtype=torch.bool, device=query.device).triu(1)
    scores[:, :, keys - rows :].masked_fill_(ahead, float("-inf"))
    return scores.softmax(-1)


def _mass_on(weights: Tensor, mask: Tensor) -> Tensor:
    return (weights * mask).sum(1).sum(dtype=torch.float64)


def _by_block(weights: Tensor, block: int) -> Tensor:
    """Weights [r, K] summed over each block of rows, [blocks, K]; the last block may be short."""
    padded = torch.nn.functional.pad(weights, (0, 0, 0, -weights.shape[0] % block))
    return padded.unflatten(0, (-1, block)).sum(1)


class _Marks:
    """Which cells count, for any stretch of rows, read from one flag per key and one per offset."""

    def __init__(self, lines: Lines, index: Index, rows: int, keys: int, dense_rows: int) -> None:
        """Flags are kept by falling offset, so that a row's flags by key are one stretch of them."""
        self.plans = lines.dense.shape[0]
        self._keys, self._history, self._block = keys, keys - rows, index.rows_per_block
        self._vertical = _flags(lines.vertical, keys)
        self._slash = _ahead(_flags(lines.slash, keys))
        self._tiles = _ahead(index.covered.bool())
        self._line_dense, self._index_dense = lines.dense.tolist(), index.dense.tolist()
        self._first_dense = first_dense_row(rows, index.rows_per_block, dense_rows)

    def lines(self, plan: int, first: int, last: int) -> Tensor:
        """Cells on a line, bool [last - first, keys seen by the last row]; cells not seen may be anything."""
        seen = self._history + last
        if self._line_dense[plan]:
            return self._vertical.new_ones(1, 1)
        start = self._keys - seen  # of the last row; each row before it starts one further on
        windows = self._slash[plan].unfold(0, seen, 1)[start : start + last - first].flip(0)
        return windows | self._vertical[plan, :seen]

    def executed(self, plan: int, first: int, last: int) -> Tensor:
        """Executed cells by row block, bool [blocks, keys seen by the last row]; cells not seen may be anything."""
        seen = self._history + last
        starts = torch.arange(first, last, self._block, device=self._tiles.device)
        if self._index_dense[plan]:
            return self._tiles.new_ones(1, 1)
        places = self._keys - 1 - self._history - starts
        windows = self._tiles[plan].unfold(0, seen, 1)[places]
        return windows | self._vertical[plan, :seen] | (starts >= self._first_dense)[:, None]


def _flags(lines: Tensor, keys: int) -> Tensor:
    """Listed lines [P, K], padded with N, as flags [P, N]."""
    flags = torch.zeros(lines.shape[0], keys + 1, dtype=torch.bool, device=lines.device)
    return flags.scatter_(1, lines.long(), True)[:, :keys]


def _ahead(flags: Tensor) -> Tensor:
    """Flags [P, N] by falling offset, then as many False ones for the keys ahead of a row."""
    return torch.nn.functional.pad(flags.flip(1), (0, flags.shape[1]))
