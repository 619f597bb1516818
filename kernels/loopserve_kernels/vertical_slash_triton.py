"""Vertical-slash attention in Triton: one program per (row block, head, split).

A program walks its tiles (contiguous keys; the first few reach past the row block's start and are masked
causally), then its verticals (gathered keys, less those a tile covers), with the online softmax

    m' = max(m, max_j s_j),  l' = l 2^(m - m') + sum_j 2^(s_j - m'),  acc' = acc 2^(m - m') + sum_j 2^(s_j - m') v_j

where s = scaling * log2(e) * q k. With few row blocks the walk is split, and the parts are merged by 2^(lse).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.executed import first_dense_row
from loopserve_kernels.index import Index
from loopserve_kernels.splits_triton import merge_splits, split_count

LOG2E = 1.4426950408889634


@triton.jit
def count_below(p_sorted, count, bound):
    """How many of the first `count` ascending values at p_sorted lie below `bound`."""
    low = count * 0
    high = count
    while low < high:
        middle = (low + high) // 2
        below = tl.load(p_sorted + middle) < bound
        low = tl.where(below, middle + 1, low)
        high = tl.where(below, high, middle)
    return low


@triton.jit
def attend_block(b_q, p_k, p_v, b_place, m_key, b_position, b_acc, b_max, b_sum, stride_kn, stride_vn, scale_log2,
                 D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, CAUSAL: tl.constexpr):  # fmt: skip
    """One online-softmax step of rows at b_position [M] over the keys at b_place [TILE] where m_key [TILE]."""
    b_d = tl.arange(0, BLOCK_D)
    o_key = b_place.to(tl.int64)
    m_d = b_d < D
    # k [BLOCK_D, TILE]
    b_k = tl.load(p_k + o_key[None, :] * stride_kn + b_d[:, None], m_key[None, :] & m_d[:, None], 0.0)
    b_s = tl.dot(b_q, b_k, input_precision=PRECISION) * scale_log2
    m_seen = m_key[None, :]
    if CAUSAL:
        m_seen = m_seen & (b_place[None, :] <= b_position[:, None])
    b_s = tl.where(m_seen, b_s, float("-inf"))
    b_new = tl.maximum(b_max, b_s.max(1))
    # A row that has seen nothing yet has a maximum of -inf, and -inf - -inf is not a number.
    b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
    b_p = tl.exp2(b_s - b_base[:, None])
    b_scale = tl.exp2(b_max - b_base)
    # v [TILE, BLOCK_D]
    b_v = tl.load(p_v + o_key[:, None] * stride_vn + b_d[None, :], m_key[:, None] & m_d[None, :], 0.0)
    b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc * b_scale[:, None], input_precision=PRECISION)
    return b_acc, b_new, b_sum * b_scale + b_p.sum(1)


def configs() -> list[triton.Config]:
    """What to tune over. The interpreter has nothing to time, so it gets one."""
    if triton.knobs.runtime.interpret:
        return [triton.Config({})]
    return [triton.Config({}, num_warps=warps, num_stages=stages) for warps, stages in ((4, 2), (4, 3), (8, 2), (4, 1))]


@triton.autotune(configs=configs(), key=["D", "M", "DTYPE"])
@triton.jit
def vertical_slash_kernel(
    p_q, p_k, p_v, p_out, p_lse, p_tile_start, p_tile_length, p_tile_count, p_covered, p_vertical, p_vertical_count,
    p_dense, stride_qh, stride_qn, stride_kg, stride_kn, stride_vg, stride_vn, stride_os, stride_oh, stride_on,
    stride_tile, stride_covered, stride_vertical, new, keys, heads, heads_per_key, heads_per_plan, first_dense,
    scale_log2, DTYPE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Computes out = softmax(scaling q k^T) v over the executed cells; with SPLIT, fp32 parts and their base-2 lse."""
    # The last row blocks have most to do, so they start first.
    i_block = tl.num_programs(0) - 1 - tl.program_id(0)
    i_head = tl.program_id(1)
    i_split = tl.program_id(2)
    i_plan = (i_head // heads_per_plan).to(tl.int64)
    i_key = (i_head // heads_per_key).to(tl.int64)
    first = (keys - new + i_block * M).to(tl.int32)  # position of the block's first row
    b_row = i_block * M + tl.arange(0, M)
    b_position = first + tl.arange(0, M)
    b_lane = tl.arange(0, TILE)
    b_d = tl.arange(0, BLOCK_D)
    m_row = b_row < new
    p_k += i_key * stride_kg
    p_v += i_key * stride_vg
    p_tile_start += i_plan * stride_tile
    p_tile_length += i_plan * stride_tile
    p_vertical += i_plan * stride_vertical
    p_covered += i_plan * stride_covered + (M - 1)
    # q [M, BLOCK_D]
    p_q += i_head.to(tl.int64) * stride_qh + b_row.to(tl.int64)[:, None] * stride_qn + b_d[None, :]
    b_q = tl.load(p_q, m_row[:, None] & (b_d < D)[None, :], 0.0)
    b_acc = tl.zeros([M, BLOCK_D], tl.float32)
    b_max = tl.full([M], float("-inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)

    dense = (tl.load(p_dense + i_plan) != 0) | (i_block * M >= first_dense)
    tiles = count_below(p_tile_start, tl.load(p_tile_count + i_plan), first + 1)
    # A dense block needs no table: its tiles are delta = 1 - M, 1 - M + TILE, ... up to the first key.
    tiles = tl.where(dense, (first + M + TILE - 1) // TILE, tiles)
    gathered = count_below(p_vertical, tl.load(p_vertical_count + i_plan), first)
    gathered = tl.where(dense, 0, gathered)
    work = tiles + (gathered + TILE - 1) // TILE
    share = (work + tl.num_programs(2) - 1) // tl.num_programs(2)
    begin = i_split * share
    end = tl.minimum(begin + share, work)

    # Offset 0 is in, so the first run starts at 1 - M: exactly these tiles reach keys after the block's first row.
    AHEAD: tl.constexpr = (M - 1 + TILE - 1) // TILE
    for j in range(begin, tl.minimum(end, AHEAD)):
        start = tl.where(dense, 1 - M + j * TILE, tl.load(p_tile_start + j, j < tiles, 0))
        length = tl.where(dense, TILE, tl.load(p_tile_length + j, (j < tiles) & (dense == 0), 0))
        b_place = first - start - length + 1 + b_lane
        m_key = (b_lane < length) & (b_place >= 0) & (b_place < keys)
        b_acc, b_max, b_sum = attend_block(b_q, p_k, p_v, b_place, m_key, b_position, b_acc, b_max, b_sum,
                                           stride_kn, stride_vn, scale_log2, D, BLOCK_D, PRECISION, True)  # fmt: skip
    for j in range(tl.maximum(begin, AHEAD), tl.minimum(end, tiles)):
        start = tl.where(dense, 1 - M + j * TILE, tl.load(p_tile_start + j, dense == 0, 0))
        length = tl.where(dense, TILE, tl.load(p_tile_length + j, dense == 0, 0))
        b_place = first - start - length + 1 + b_lane
        m_key = (b_lane < length) & (b_place >= 0)
        b_acc, b_max, b_sum = attend_block(b_q, p_k, p_v, b_place, m_key, b_position, b_acc, b_max, b_sum,
                                           stride_kn, stride_vn, scale_log2, D, BLOCK_D, PRECISION, False)  # fmt: skip
    for j in range(tl.maximum(begin, tiles) - tiles, end - tiles):
        m_listed = j * TILE + b_lane < gathered
        # verticals [TILE]
        b_place = tl.load(p_vertical + j * TILE + b_lane, m_listed, 0)
        # covered [TILE]
        b_covered = tl.load(p_covered + (first - b_place), m_listed, 1)
        m_key = m_listed & (b_covered == 0)
        b_acc, b_max, b_sum = attend_block(b_q, p_k, p_v, b_place, m_key, b_position, b_acc, b_max, b_sum,
                                           stride_kn, stride_vn, scale_log2, D, BLOCK_D, PRECISION, False)  # fmt: skip

    b_acc = b_acc / tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    p_out += i_split.to(tl.int64) * stride_os + i_head.to(tl.int64) * stride_oh
    p_out += b_row.to(tl.int64)[:, None] * stride_on + b_d[None, :]
    tl.store(p_out, b_acc.to(p_out.dtype.element_ty), m_row[:, None] & (b_d < D)[None, :])
    if SPLIT:
        o_lse = (i_split.to(tl.int64) * heads + i_head) * new
        tl.store(p_lse + o_lse + b_row, b_max + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum)), m_row)


def vertical_slash_triton(
    query: Tensor, key: Tensor, value: Tensor, index: Index, scaling: float, dense_rows: int = 0,
    splits: int | None = None,
) -> Tensor:  # fmt: skip
    """As `vertical_slash`; `splits` is chosen so that short questions over long histories fill the device."""
    heads, new, size = query.shape
    plans, block, tile = index.dense.shape[0], index.rows_per_block, index.tile
    query, key, value = (part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value))
    assert block >= 16 and tile >= 16 and block & (block - 1) == 0 and tile & (tile - 1) == 0, (block, tile)
    tables = (index.tile_start, index.tile_length, index.covered, index.vertical)
    assert all(table.is_contiguous() for table in tables)
    blocks = triton.cdiv(new, block)
    splits = split_count(blocks * heads, query.device) if splits is None else splits
    out = torch.empty(new, heads, size, dtype=query.dtype, device=query.device).transpose(0, 1)
    part, lse = out[None], torch.empty(0, device=query.device)
    if splits > 1:
        part = torch.empty(splits, heads, new, size, dtype=torch.float32, device=query.device)
        lse = torch.empty(splits, heads, new, dtype=torch.float32, device=query.device)
    width = max(16, triton.next_power_of_2(size))
    vertical_slash_kernel[(blocks, heads, splits)](
        p_q=query, p_k=key, p_v=value, p_out=part, p_lse=lse, p_tile_start=index.tile_start,
        p_tile_length=index.tile_length, p_tile_count=index.tile_count, p_covered=index.covered,
        p_vertical=index.vertical, p_vertical_count=index.vertical_count, p_dense=index.dense,
        stride_qh=query.stride(0), stride_qn=query.stride(1), stride_kg=key.stride(0), stride_kn=key.stride(1),
        stride_vg=value.stride(0), stride_vn=value.stride(1), stride_os=part.stride(0), stride_oh=part.stride(1),
        stride_on=part.stride(2), stride_tile=index.tile_start.shape[1], stride_covered=index.covered.shape[1],
        stride_vertical=index.vertical.shape[1], new=new, keys=key.shape[1], heads=heads,
        heads_per_key=heads // key.shape[0], heads_per_plan=heads // plans,
        first_dense=first_dense_row(new, block, dense_rows), scale_log2=scaling * LOG2E, DTYPE=str(query.dtype),
        D=size, BLOCK_D=width, M=block, TILE=tile,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32", SPLIT=splits > 1,
    )  # fmt: skip
    if splits > 1:
        merge_splits(part, lse, out)
    return out
