"""Block mass: what the last rows give to the blocks of keys, by column and by diagonal.

`line_mass` of the last rows, summed by block: column c holds the keys c M .. c M + M - 1, diagonal s the offsets
s M .. s M + M - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.blocks import BlockGrid
from loopserve_kernels.device import on_gpu
from loopserve_kernels.lines import line_mass
from loopserve_kernels.sample import MOST_BYTES


@dataclass(frozen=True, slots=True)
class BlockMass:
    """Shares of the last rows' attention, so each sums to 1; `by_row` tells apart the row blocks they stand in."""

    vertical: Tensor  # [H, C] fp32, by key block
    slash: Tensor  # [H, C] fp32, by block of offsets
    by_row: Tensor  # [H, r, C] fp32, of the last r row blocks, together `vertical`

    def on(self, chosen: Tensor) -> Tensor:
        """The share that chosen blocks hold, bool [H, R, C] with what every row block executes; [H]."""
        return (self.by_row * chosen[:, -self.by_row.shape[1] :]).sum((1, 2))


def last_rows_mass(query: Tensor, key: Tensor, scaling: float, grid: BlockGrid) -> BlockMass:
    """The mass that the last `grid.size` rows of query [H, n, D] (or all, if fewer) give to key [G, N, D]."""
    count = min(grid.size, grid.new)
    # The rows of the last row block, and those of the block before it.
    own = min(count, grid.keys - (grid.columns - 1) * grid.size)
    parts = [_mass(query[:, grid.new - count : grid.new - own], key, scaling, grid, own)] if own < count else []
    parts.append(_mass(query[:, grid.new - own :], key, scaling, grid, 0))
    by_row = torch.stack([vertical for vertical, _ in parts], 1) / count
    slash: Tensor = sum(slash for _, slash in parts) / count  # type: ignore[assignment]
    return BlockMass(by_row.sum(1), slash, by_row)


def _mass(rows: Tensor, key: Tensor, scaling: float, grid: BlockGrid, after: int) -> tuple[Tensor, Tensor]:
    """The block sums of vertical and slash mass of rows [H, m, D], which `after` new rows follow; each [H, C]."""
    positions = torch.arange(grid.keys - after - rows.shape[1], grid.keys - after, device=rows.device)
    each, kind = rows.shape[0] // key.shape[0], "gpu" if on_gpu(key) else "cpu"
    step = max(1, MOST_BYTES[kind] // (4 * each * rows.shape[1] * grid.keys))
    found = []
    for group in range(0, key.shape[0], step):
        mass = line_mass(rows[group * each : (group + step) * each], positions, key[group : group + step], scaling)
        found.append((_by_block(mass.vertical, grid), _by_block(mass.slash, grid)))
    return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])


def _by_block(mass: Tensor, grid: BlockGrid) -> Tensor:
    """Sums [H, C] of masses [H, N]."""
    return F.pad(mass, (0, grid.columns * grid.size - grid.keys)).unflatten(1, (-1, grid.size)).sum(2)
