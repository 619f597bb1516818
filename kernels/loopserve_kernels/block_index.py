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
    block: Tensor  # [P, R, C] int32 key blocks before the diagonal, ascending, padded with C
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
    block, count = pack(every, listed.flatten(0, 1), columns)
    count = count.view(plans, rows)
    causal = causal_entries(grid.new, grid.keys)
    left_out = grid.diagonal(chosen.device) - count
    entries = causal - (left_out * grid.heights(chosen.device)).sum(1) * grid.size
    dense = (entries > most_entries) | (entries == causal)
    return BlockIndex(grid, block.view(plans, rows, columns), count, dense, entries.masked_fill(dense, causal))


def executed_blocks(index: BlockIndex) -> Tensor:
    """Cells that are computed, bool [P, n, N]. For tests and small inputs."""
    grid, device = index.grid, index.block.device
    listed = torch.zeros(*index.count.shape, grid.columns + 1, dtype=torch.bool, device=device)
    listed.scatter_(2, index.block.long(), True)
    chosen = listed[..., : grid.columns] | index.dense[:, None, None]
    column = torch.arange(grid.keys, device=device)
    position = column[grid.keys - grid.new :]
    cells = grid.causal(chosen)[:, position // grid.size - grid.first][:, :, column // grid.size]
    return cells & (column <= position[:, None])
