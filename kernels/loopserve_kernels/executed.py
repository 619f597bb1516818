"""What an index makes a kernel compute: the mask of executed cells, and their number without any mask."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.index import Index


def executed_mask(index: Index, new: int, keys: int, dense_rows: int = 0) -> Tensor:
    """Cells that are computed, bool [P, n, N]: under a tile or on a vertical, and causal. For tests and small inputs.

    The last `dense_rows` rows see everything, rounded up to whole row blocks.
    """
    history, block = keys - new, index.rows_per_block
    row = torch.arange(new, device=index.covered.device)
    column = torch.arange(keys, device=index.covered.device)
    first = history + row // block * block
    place = (first[:, None] - column + block - 1).clamp_min(0)
    under = index.covered[:, place].bool()
    listed = torch.zeros(index.vertical.shape[0], keys + 1, dtype=torch.bool, device=row.device)
    listed.scatter_(1, index.vertical.long(), True)
    full = index.dense[:, None] | (row >= first_dense_row(new, block, dense_rows))
    causal = column <= (history + row)[:, None]
    return (under | listed[:, None, :keys] | full[:, :, None]) & causal


def first_dense_row(new: int, block: int, dense_rows: int) -> int:
    """The row from which on blocks are dense so that at least the last `dense_rows` rows are."""
    return max(0, new - dense_rows) // block * block if dense_rows > 0 else new


def executed_entries(index: Index, new: int, keys: int, dense_rows: int = 0) -> Tensor:
    """Number of executed cells per line head, int64 [P]; over `causal_entries` it is the density. O(N) per head."""
    block = index.rows_per_block
    sparse = first_dense_row(new, block, dense_rows)
    history = keys - new
    tail = causal_entries(new, keys) - causal_entries(sparse, history + sparse)
    cells = _under_tiles(index, sparse, history) + _on_verticals(index, sparse, history)
    return (cells + tail).masked_fill(index.dense, causal_entries(new, keys))


def causal_entries(new: int, keys: int) -> int:
    """Cells of dense causal attention: row i of n sees N - n + i + 1 keys."""
    return new * (keys - new) + new * (new + 1) // 2


def _block_rows(index: Index, new: int) -> Tensor:
    """Rows of every row block, int64 [blocks]; only the last may be short."""
    first = torch.arange(0, new, index.rows_per_block, device=index.covered.device)
    return (new - first).clamp_max(index.rows_per_block)


def _under_tiles(index: Index, new: int, history: int) -> Tensor:
    """A delta of 0 or more is seen by all rows of every block that starts at it or later; below 0 by some."""
    block, rows = index.rows_per_block, _block_rows(index, new)
    delta = torch.arange(1 - block, index.covered.shape[1] - block + 1, device=rows.device)
    later = torch.nn.functional.pad(rows.flip(0).cumsum(0).flip(0), (0, 1))
    opens = ((delta - history).clamp_min(0) + block - 1) // block
    seen = later[opens.clamp_max(rows.shape[0])]
    above = (rows[:, None] + delta[: block - 1]).clamp_min(0).sum(0)
    seen[: block - 1] = above
    return (index.covered.long() * seen).sum(1)


def _on_verticals(index: Index, new: int, history: int) -> Tensor:
    """A vertical meets each row block at one delta; those deltas are M apart, so sums with stride M count them."""
    block, rows = index.rows_per_block, _block_rows(index, new)
    if rows.numel() == 0:
        return torch.zeros_like(index.vertical_count, dtype=torch.int64)
    free = 1 - index.covered[:, block - 1 :].long()  # by delta from 0
    keys, key = free.shape[1], index.vertical.long()
    padded = torch.nn.functional.pad(free, (0, -keys % block))
    # counts[delta] = free deltas at delta, delta - M, delta - 2 M, ...
    counts = padded.reshape(free.shape[0], -1, block).cumsum(1).reshape(padded.shape)
    last = history + (rows.shape[0] - 1) * block - key
    before = (history - key) - block  # the delta of the block before the first
    total = _at(counts, last) - _at(counts, before)
    cells = total * block - _at(free, last) * (block - rows[-1])
    return cells.masked_fill(key >= history + new, 0).sum(1)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Values [P, N] at place [P, K], 0 where place is negative."""
    picked = values.gather(1, place.clamp(0, values.shape[1] - 1))
    return picked.masked_fill(place < 0, 0)
