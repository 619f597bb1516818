"""What an index makes a kernel compute: the mask of executed cells, and their number without any mask."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.entries import causal_entries, first_dense_row
from loopserve_kernels.index import count_entries
from loopserve_kernels.tile_index import Index

__all__ = ["causal_entries", "executed_entries", "executed_mask", "first_dense_row"]


def executed_mask(index: Index, new: int, keys: int, dense_rows: int = 0) -> Tensor:
    """Cells that are computed, bool [P, n, N]: under a tile or on a vertical, and causal. For tests and small inputs.

    The last `dense_rows` rows see everything, rounded up to whole row blocks.
    """
    mask = _mask(index, index.rows_per_block, new, keys, dense_rows)
    if index.wide is None:
        return mask
    wide = _mask(index, 2 * index.rows_per_block, new, keys, dense_rows)
    return torch.where(index.wide[:, None, None], wide, mask)


def executed_entries(index: Index, new: int, keys: int, dense_rows: int = 0) -> Tensor:
    """Number of executed cells per line head, int64 [P]; over `causal_entries` it is the density. O(N) per head."""
    return count_entries(index, new, keys, dense_rows)


def _mask(index: Index, block: int, new: int, keys: int, dense_rows: int) -> Tensor:
    """The mask if every head ran in blocks of `block` rows."""
    history = keys - new
    row = torch.arange(new, device=index.covered.device)
    column = torch.arange(keys, device=index.covered.device)
    first = history + row // block * block
    place = (first[:, None] - column + index.reach).clamp_min(0)
    under = index.covered[:, place].bool()
    listed = torch.zeros(index.vertical.shape[0], keys + 1, dtype=torch.bool, device=row.device)
    listed.scatter_(1, index.vertical.long(), True)
    full = index.dense[:, None] | (row >= first_dense_row(new, block, dense_rows))
    causal = column <= (history + row)[:, None]
    return (under | listed[:, None, :keys] | full[:, :, None]) & causal
