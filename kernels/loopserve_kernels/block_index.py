"""The index of a block plan: for every row block the key blocks that it executes, and how many cells that are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.blocks import BlockGrid, Blocks
from loopserve_kernels.entries import causal_entries
from loopserve_kernels.ranking import pack


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """What a kernel reads. The block on the diagonal is in no list: every row block executes it, causally."""

    grid: BlockGrid
    block: Tensor  # [P, R, C] int32 key blocks before the diagonal, ascending; what follows them says nothing
    count: Tensor  # [P, R] int32
    dense: Tensor  # [P] bool, every key is executed
    entries: Tensor  # [P] int64, cells computed


def make_block_index(blocks: Blocks, most_entries: float = float("inf")) -> BlockIndex:
    """The index of chosen blocks, its cells counted, dear heads made dense. Nothing waits for the device.

    A head that would compute more than `most_entries` cells is dense, as is one that leaves nothing out, and so counts
    all causal ones.
    """
    grid, chosen = blocks.grid, blocks.chosen
    plans, rows, columns = chosen.shape
    assert (rows, columns) == (grid.rows, grid.columns), (chosen.shape, grid)
    listed = chosen & (grid.ahead(chosen.device) > 0)
    every = torch.arange(columns, device=chosen.device).expand(plans * rows, columns)
    block, count = (part.view(plans, rows, -1) for part in pack(every, listed.flatten(0, 1), columns))
    causal = causal_entries(grid.new, grid.keys)
    most = grid.diagonal(chosen.device)
    left_out = (most - count.squeeze(2)) * grid.heights(chosen.device)
    entries = causal - left_out.sum(1) * grid.size
    dense = (entries > most_entries) | (entries == causal)
    # A dense head lists every block, so that a kernel need not ask which heads are dense.
    block = torch.where(dense[:, None, None], every[0].to(block.dtype), block)
    count = torch.where(dense[:, None], most.to(count.dtype), count.squeeze(2))
    return BlockIndex(grid, block, count, dense, entries.masked_fill(dense, causal))


def executed_blocks(index: BlockIndex) -> Tensor:
    """Cells that are computed, bool [P, n, N]. For tests and small inputs."""
    grid, device = index.grid, index.block.device
    inside = torch.arange(grid.columns, device=device) < index.count[..., None]
    listed = torch.zeros(*index.count.shape, grid.columns + 1, dtype=torch.bool, device=device)
    chosen = listed.scatter_(2, index.block.long().masked_fill(~inside, grid.columns), True)[..., : grid.columns]
    column = torch.arange(grid.keys, device=device)
    position = column[grid.keys - grid.new :]
    cells = grid.causal(chosen)[:, position // grid.size - grid.first][:, :, column // grid.size]
    return cells & (column <= position[:, None])
