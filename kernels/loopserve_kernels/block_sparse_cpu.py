"""Block-sparse attention on a CPU: a row block's key blocks gathered side by side, one product, one softmax.

Gathering copies each key once for a whole block of rows, which is little beside the product with them. All row blocks
work in the same rooms: fresh ones of this size cost as much again in page faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.block_index import BlockIndex
from loopserve_kernels.blocks import BlockGrid
from loopserve_kernels.dense import dense_attention


def block_sparse_cpu(query: Tensor, key: Tensor, value: Tensor, index: BlockIndex, scaling: float) -> Tensor:
    """As `block_sparse`. Half types compute in fp32."""
    heads, groups, plans = query.shape[0], key.shape[0], index.dense.shape[0]
    grid, dense = index.grid, index.dense.tolist()
    out = torch.empty_like(query)
    rooms = _Rooms.of(query, grid)
    for group in range(groups):
        stored = _in_blocks(key[group], grid).mul_(scaling), _in_blocks(value[group], grid)
        for head in range(group * heads // groups, (group + 1) * heads // groups):
            plan = head * plans // heads
            if dense[plan]:
                rows, keys, values = (part[None, None] for part in (query[head], key[group], value[group]))
                out[head] = dense_attention(rows, keys, values, scaling)[0, 0]
            else:
                listed = _listed(index, plan)
                _attend(query[head], *stored, listed, grid, rooms, out[head])
    return out


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What row blocks work in: gathered keys and values [C size D], scores [size C size], and what the diagonal hides.

    On the diagonal row i sees the first i + 1 keys, so what pads the last block is hidden too.
    """

    key: Tensor
    value: Tensor
    scores: Tensor
    ahead: Tensor  # [size, size]

    @classmethod
    def of(cls, query: Tensor, grid: BlockGrid) -> _Rooms:
        """Rooms for rows of query [H, n, D]."""
        made = query.new_empty(0, dtype=torch.promote_types(query.dtype, torch.float32))
        most = grid.columns * grid.size
        key, value = made.new_empty(2, most * query.shape[2])
        ahead = made.new_full((grid.size, grid.size), float("-inf")).triu_(1)
        return cls(key, value, made.new_empty(min(grid.size, grid.new) * most), ahead)


def _in_blocks(part: Tensor, grid: BlockGrid) -> Tensor:
    """A copy of keys or values [N, D] as [C, size, D], in fp32 at least, zeros after the last."""
    whole = grid.columns * grid.size
    copy = part.new_zeros(whole, part.shape[1], dtype=torch.promote_types(part.dtype, torch.float32))
    copy[: grid.keys] = part
    return copy.view(grid.columns, grid.size, -1)


def _listed(index: BlockIndex, plan: int) -> list[Tensor]:
    """The key blocks of every row block, the one on the diagonal last."""
    first = index.grid.first
    counts = index.count[plan].tolist()
    return [F.pad(index.block[plan, row, :count], (0, 1), value=first + row) for row, count in enumerate(counts)]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, listed: list[Tensor], grid: BlockGrid, rooms: _Rooms, out: Tensor
) -> None:
    """Attention of one head's rows [n, D]; key (scaled) and value [C, size, D]; writes out [n, D]."""
    size, history = grid.size, grid.keys - grid.new
    for number, blocks in enumerate(listed):
        base = (grid.first + number) * size
        low, high = max(base, history), min(base + size, grid.keys)
        own = slice(low - history, high - history)
        keys, values = (
            torch.index_select(part, 0, blocks, out=room[: len(blocks) * part[0].numel()].view(-1, *part.shape[1:]))
            for part, room in ((key, rooms.key), (value, rooms.value))
        )
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        scores = rooms.scores[: (high - low) * len(keys)].view(high - low, -1)
        torch.mm(query[own].to(key.dtype), keys.T, out=scores)
        scores[:, -size:] += rooms.ahead[low - base : high - base]
        out[own] = torch.softmax(scores, -1, out=scores) @ values
