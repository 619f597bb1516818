"""Block-sparse attention on a CPU: a row block's key blocks gathered side by side, one product, one softmax.

Gathering copies each key once for a whole block of rows, which is little beside the product with them.
"""

from __future__ import annotations

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
    for group in range(groups):
        stored = _in_blocks(key[group], grid).mul_(scaling), _in_blocks(value[group], grid)
        for head in range(group * heads // groups, (group + 1) * heads // groups):
            plan = head * plans // heads
            if dense[plan]:
                rows, keys, values = (part[None, None] for part in (query[head], key[group], value[group]))
                out[head] = dense_attention(rows, keys, values, scaling)[0, 0]
            else:
                _attend(query[head], *stored, index.block[plan], index.count[plan].tolist(), grid, out[head])
    return out


def _in_blocks(part: Tensor, grid: BlockGrid) -> Tensor:
    """A copy of keys or values [N, D] as [C, size, D], in fp32 at least, zeros after the last."""
    whole = grid.columns * grid.size
    copy = part.new_zeros(whole, part.shape[1], dtype=torch.promote_types(part.dtype, torch.float32))
    copy[: grid.keys] = part
    return copy.view(grid.columns, grid.size, -1)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, block: Tensor, counts: list[int], grid: BlockGrid, out: Tensor
) -> None:
    """Attention of one head's rows [n, D]; key (scaled) and value [C, size, D], block [R, C]; writes out [n, D]."""
    size, history = grid.size, grid.keys - grid.new
    # On the diagonal row i sees the first i + 1 keys, so what pads the last block is hidden too.
    ahead = torch.full((size, size), float("-inf"), dtype=key.dtype).triu_(1)
    for number, count in enumerate(counts):
        base = (grid.first + number) * size
        low, high = max(base, history), min(base + size, grid.keys)
        listed = F.pad(block[number, :count], (0, 1), value=grid.first + number)
        rows = query[low - history : high - history].to(key.dtype)
        scores = rows @ key[listed].flatten(0, 1).T
        scores[:, -size:] += ahead[low - base : high - base]
        out[low - history : high - history] = torch.softmax(scores, -1, out=scores) @ value[listed].flatten(0, 1)
