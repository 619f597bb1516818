"""The launch of the Triton block-sparse kernel: how many rows and keys at once, and how many splits."""

from __future__ import annotations

import triton
from torch import Tensor

from loopserve_kernels.attention_launch import attention_arguments, attention_room
from loopserve_kernels.attention_shape import attention_shape
from loopserve_kernels.block_index import BlockIndex
from loopserve_kernels.blocks_triton import block_sparse_kernel
from loopserve_kernels.splits_triton import merge_splits, split_count


def block_sparse_triton(
    query: Tensor, key: Tensor, value: Tensor, index: BlockIndex, scaling: float, splits: int | None = None
) -> Tensor:
    """As `block_sparse`; `splits` is chosen so that short questions over long histories fill the device."""
    query, key, value = (rows if rows.stride(-1) == 1 else rows.contiguous() for rows in (query, key, value))
    heads, grid = query.shape[0], index.grid
    shape = attention_shape(query.shape[2], query.dtype, query.device)
    height, tile = min(shape.rows, grid.size), min(shape.tile, grid.size)
    assert grid.size >= 16 and grid.size % height == grid.size % tile == 0, f"blocks of {grid.size}"
    assert index.block.is_contiguous() and index.count.is_contiguous()
    programs = triton.cdiv(grid.keys - grid.first * grid.size, height)
    if splits is None:
        splits = split_count(programs * heads, query.device)
    out, part, lse = attention_room(query, splits)
    block_sparse_kernel[(programs, heads, splits)](
        p_block=index.block, p_count=index.count, row_blocks=grid.rows, key_blocks=grid.columns,
        first_block=grid.first, heads_per_plan=heads // index.dense.shape[0], BLOCK=grid.size, HEIGHT=height,
        num_warps=shape.warps, **attention_arguments(query, key, value, part, lse, scaling, tile, shape),
    )  # fmt: skip
    if splits > 1:
        merge_splits(part, lse, out)
    return out
