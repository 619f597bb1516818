"""Launches of the Triton vertical-slash kernel: which heads in which blocks, and how many splits."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from loopserve_kernels.attention_shape import AttentionShape, attention_shape
from loopserve_kernels.attention_triton import vertical_slash_kernel
from loopserve_kernels.executed import first_dense_row
from loopserve_kernels.splits_triton import merge_splits, split_count
from loopserve_kernels.tile_index import Index
from loopserve_kernels.tile_order import kernel_order

LOG2E = 1.4426950408889634


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
    out = torch.empty(new, heads, size, dtype=query.dtype, device=query.device).transpose(0, 1)
    part, lse = out[None], torch.empty(0, device=query.device)
    if splits > 1:
        part = torch.empty(splits, heads, new, size, dtype=torch.float32, device=query.device)
        lse = torch.empty(splits, heads, new, dtype=torch.float32, device=query.device)
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
    heads, new, size = query.shape
    keys, tile = key.shape[1], index.tile
    assert index.full_count is not None and scaling > 0
    assert index.rows_per_block >= 16 and tile >= 16 and tile & (tile - 1) == 0
    if keys < tile:
        # A tile is read whole wherever it lies, so there must be as many keys as it has.
        key, value = (torch.nn.functional.pad(rows, (0, 0, 0, tile - keys)) for rows in (key, value))
    tables = (index.tile_start, index.tile_length, index.covered, index.vertical)
    assert all(table.is_contiguous() for table in tables)
    strides = dict(
        stride_qh=query.stride(0), stride_qn=query.stride(1), stride_kg=key.stride(0), stride_vg=value.stride(0),
        stride_os=part.stride(0), stride_oh=part.stride(1), stride_on=part.stride(2),
    )  # fmt: skip
    # Follows the head size, so no length changes it. A view that lies otherwise is read element by element.
    unit = math.gcd(16, size)
    if any(stride % unit for stride in (*strides.values(), key.stride(1), value.stride(1))):
        unit = 1
    return dict(
        p_q=query, p_k=key, p_v=value, p_out=part, p_lse=lse, p_tile_start=index.tile_start,
        p_tile_length=index.tile_length, p_full_count=index.full_count, p_tile_count=index.tile_count,
        p_covered=index.covered, p_vertical=index.vertical, p_vertical_count=index.vertical_count,
        p_dense=index.dense, p_tall=index.dense if index.wide is None else index.wide,
        stride_tile=index.tile_start.shape[1], stride_covered=index.covered.shape[1],
        stride_vertical=index.vertical.shape[1], new=new, keys=keys, heads=heads,
        heads_per_key=heads // key.shape[0], heads_per_plan=heads // index.dense.shape[0], reach=index.reach,
        scale_log2=scaling * LOG2E, STRIDE_K=key.stride(1), STRIDE_V=value.stride(1), UNIT=unit, D=size,
        BLOCK_D=max(16, triton.next_power_of_2(size)), TILE=tile,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32", SPLIT=part.shape[0] > 1,
        num_stages=shape.stages, enable_fp_fusion=True,
        **{name: stride // unit for name, stride in strides.items()},
    )  # fmt: skip
