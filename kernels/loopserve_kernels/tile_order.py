"""Tiles in the order in which the Triton kernel walks them: whole ones first, then the rest."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from loopserve_kernels.tile_index import Index


def kernel_order(index: Index) -> Index:
    """The index with `full_count`, and with four bytes per delta, which a GPU copies without waiting for them.

    Deltas up to 0 are in every index, so the kernel does not look them up: its tiles start at delta 1.
    """
    start = index.tile_start.clamp_min(1)
    length = (index.tile_length - (start - index.tile_start)).clamp_min(0)
    full, part = length == index.tile, (length > 0) & (length < index.tile)
    order = torch.where(full, 0, torch.where(part, 1, 2)).sort(dim=1, stable=True).indices
    full_count, count = full.sum(1, dtype=torch.int32), (length > 0).sum(1, dtype=torch.int32)
    return replace(
        index,
        tile_start=_reordered(start, order, count, int(index.covered.shape[1]) - index.reach),
        tile_length=_reordered(length, order, count, 0),
        tile_count=count,
        covered=index.covered.to(torch.int32),
        full_count=full_count,
    )


def _reordered(values: Tensor, order: Tensor, count: Tensor, padding: int) -> Tensor:
    beyond = torch.arange(values.shape[1], device=values.device) >= count[:, None]
    return values.gather(1, order).masked_fill(beyond, padding)
