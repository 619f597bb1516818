"""Launches of the Triton vertical-slash kernel: which heads in which blocks, and how many splits."""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from loopserve_kernels.attention_launch import attention_arguments, attention_room
from loopserve_kernels.attention_shape import AttentionShape, attention_shape
from loopserve_kernels.attention_triton import vertical_slash_kernel
from loopserve_kernels.executed import first_dense_row
from loopserve_kernels.splits_triton import merge_splits, split_count
from loopserve_kernels.tile_index import Index
from loopserve_kernels.tile_order import kernel_order


def vertical_slash_triton(
    query: Tensor, key: Tensor, value: Tensor, index: Index, scaling: float, dense_rows: int = 0,
    splits: int | None = None,
) -> Tensor:  # fmt: skip
    """As `vertical_slash`; `splits` is chosen so that short questions over long histories fill the device.

    Heads flagged `wide` run in blocks of twice the rows, in a launch of their own: nobody waits to learn which. Heads
    that share their keys and their lines run two in a block.
    """
    query, key, value = (rows if rows.stride(-1) == 1 else rows.contiguous() for rows in (query, key, value))
    (heads, new, size), groups = query.shape, key.shape[0]
    if index.full_count is None:
        index = kernel_order(index)
    shape = attention_shape(size, query.dtype, query.device)
    height, plans = index.rows_per_block, index.dense.shape[0]
    paired = shape.tall_warps is not None and (heads // groups) % 2 == (heads // plans) % 2 == 0
    tallest = height if index.wide is None else 2 * height
    if splits is None:
        splits = split_count(triton.cdiv(new, tallest) * heads // (1 + paired), query.device)
    out, part, lse = attention_room(query, splits)
    given = _arguments(query, key, value, index, part, lse, scaling, shape)

    def launch(height: int, members: int, warps: int, tall: bool | None) -> None:
        vertical_slash_kernel[(triton.cdiv(new, height), heads // members, splits)](
            first_dense=first_dense_row(new, height, dense_rows), HEIGHT=height, MEMBERS=members, TALL=tall,
            num_warps=warps, **given,
        )  # fmt: skip

    tall_warps = shape.tall_warps or shape.warps
    some = None if index.wide is None else False
    launch(height, 1 + paired, tall_warps if paired else shape.warps, some)
    if index.wide is not None:
        launch(2 * height, 1, tall_warps, True)
    if splits > 1:
        merge_splits(part, lse, out)
    return out


def _arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    index: Index,
    part: Tensor,
    lse: Tensor,
    scaling: float,
    shape: AttentionShape,
) -> dict[str, Any]:
    """What every launch takes, by keyword."""
    assert index.full_count is not None
    assert index.rows_per_block >= 16
    tables = (index.tile_start, index.tile_length, index.covered, index.vertical)
    assert all(table.is_contiguous() for table in tables)
    return attention_arguments(query, key, value, part, lse, scaling, index.tile, shape) | dict(
        p_tile_start=index.tile_start, p_tile_length=index.tile_length, p_full_count=index.full_count,
        p_tile_count=index.tile_count, p_covered=index.covered, p_vertical=index.vertical,
        p_vertical_count=index.vertical_count, p_dense=index.dense,
        p_tall=index.dense if index.wide is None else index.wide, stride_tile=index.tile_start.shape[1],
        stride_covered=index.covered.shape[1], stride_vertical=index.vertical.shape[1],
        heads_per_plan=query.shape[0] // index.dense.shape[0], reach=index.reach,
    )  # fmt: skip
