"""How many cells lines make a kernel compute, counted from the byte map and the verticals, without any mask."""

from __future__ import annotations

import torch
from torch import Tensor


def first_dense_row(new: int, block: int, dense_rows: int) -> int:
    """The row from which on blocks are dense so that at least the last `dense_rows` rows are."""
    return max(0, new - dense_rows) // block * block if dense_rows > 0 else new


def causal_entries(new: int, keys: int) -> int:
    """Cells of dense causal attention: row i of n sees N - n + i + 1 keys."""
    return new * (keys - new) + new * (new + 1) // 2


def sparse_entries(covered: Tensor, vertical: Tensor, block: int, new: int, keys: int, dense_rows: int) -> Tensor:
    """Cells of n new rows over N keys in blocks of M rows, the last `dense_rows` dense; int64 [P]. O(N) per head.

    covered [P, M - 1 + N] is the byte map of tiles by delta from 1 - M, vertical [P, K] the keys, padded with N.
    """
    sparse = first_dense_row(new, block, dense_rows)
    history = keys - new
    tail = causal_entries(new, keys) - causal_entries(sparse, history + sparse)
    rows = _block_rows(block, sparse, covered.device)
    return _under_tiles(covered, rows, block, history) + _on_verticals(covered, vertical, rows, block, history) + tail


def _block_rows(block: int, new: int, device: torch.device) -> Tensor:
    """Rows of every row block, int64 [blocks]; only the last may be short."""
    first = torch.arange(0, new, block, device=device)
    return (new - first).clamp_max(block)


def _under_tiles(covered: Tensor, rows: Tensor, block: int, history: int) -> Tensor:
    """A delta of 0 or more is seen by all rows of every block that starts at it or later; below 0 by some."""
    delta = torch.arange(1 - block, covered.shape[1] - block + 1, device=rows.device)
    later = torch.nn.functional.pad(rows.flip(0).cumsum(0).flip(0), (0, 1))
    opens = ((delta - history).clamp_min(0) + block - 1) // block
    seen = later[opens.clamp_max(rows.shape[0])]
    above = (rows[:, None] + delta[: block - 1]).clamp_min(0).sum(0)
    seen[: block - 1] = above
    return (covered.long() * seen).sum(1)


def _on_verticals(covered: Tensor, vertical: Tensor, rows: Tensor, block: int, history: int) -> Tensor:
    """A vertical meets each row block at one delta; those deltas are M apart, so sums with stride M count them."""
    if rows.numel() == 0:
        return torch.zeros(vertical.shape[0], dtype=torch.int64, device=vertical.device)
    free = 1 - covered[:, block - 1 :].long()  # by delta from 0
    keys, key = free.shape[1], vertical.long()
    padded = torch.nn.functional.pad(free, (0, -keys % block))
    # counts[delta] = free deltas at delta, delta - M, delta - 2 M, ...
    counts = padded.reshape(free.shape[0], -1, block).cumsum(1).reshape(padded.shape)
    last = history + (rows.shape[0] - 1) * block - key
    before = (history - key) - block  # the delta of the block before the first
    total = _at(counts, last) - _at(counts, before)
    cells = total * block - _at(free, last) * (block - rows[-1])
    # What is at `history + new` rows or later is not there, or is what the padding says.
    return cells.masked_fill(key >= history + rows.sum(), 0).sum(1)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Values [P, N] at place [P, K], 0 where place is negative."""
    picked = values.gather(1, place.clamp(0, values.shape[1] - 1))
    return picked.masked_fill(place < 0, 0)
