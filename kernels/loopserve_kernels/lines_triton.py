"""Line mass in Triton: the weights of the sampled rows are written once, [H, m, N] in fp32, and read along both ways.

A program owns the keys, or the offsets, that it sums over: no atomics, so repeated runs agree to the bit. Cells that
a row does not see are neither written nor read.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.mass import LineMass

LOG2E = 1.4426950408889634
MOST_SPLITS = 64
LENGTHS = ["rows", "keys", "span", "splits", "heads"]
UNALIGNED = ["p_position"]
# Offsets per program, and rows that it reads at once.
OFFSETS, ROWS = 256, 8


@triton.jit
def sampled_scores(p_rows, p_position, p_key, b_key, i_head, i_group, first_row, rows, keys, stride_rh, stride_rn,
                   stride_kg, stride_kn, scale_log2, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """Base-2 scores [M, TILE] of sampled rows against keys b_key [TILE], -inf where hidden, and positions [M]."""
    b_row = first_row + tl.arange(0, M)
    b_d = tl.arange(0, BLOCK_D)
    m_row = b_row < rows
    # q [M, BLOCK_D]
    p_q = p_rows + i_head.to(tl.int64) * stride_rh + b_row.to(tl.int64)[:, None] * stride_rn + b_d[None, :]
    b_q = tl.load(p_q, m_row[:, None] & (b_d < D)[None, :], 0.0)
    # k [BLOCK_D, TILE]
    p_k = p_key + i_group.to(tl.int64) * stride_kg + b_key.to(tl.int64)[None, :] * stride_kn + b_d[:, None]
    b_k = tl.load(p_k, (b_key < keys)[None, :] & (b_d < D)[:, None], 0.0)
    # positions [M]; rows that are not there see nothing
    b_position = tl.load(p_position + b_row, m_row, -1).to(tl.int32)
    b_s = tl.dot(b_q, b_k, input_precision=PRECISION) * scale_log2
    return tl.where(b_key[None, :] <= b_position[:, None], b_s, float("-inf")), b_position


@triton.jit(do_not_specialize=LENGTHS, do_not_specialize_on_alignment=UNALIGNED)
def row_lse_kernel(p_rows, p_position, p_key, p_parts, rows, keys, heads, heads_per_key, span, stride_rh, stride_rn,
                   stride_kg, stride_kn, scale_log2, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr,
                   TILE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """lse[split, h, i] = log2 sum over the split's keys of 2^s; one program per (split of keys, head, M rows)."""
    i_split = tl.program_id(0)
    i_head = tl.program_id(1)
    first_row = tl.program_id(2) * M
    b_max = tl.full([M], float("-inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)
    for first in range(i_split * span, tl.minimum(i_split * span + span, keys), TILE):
        b_key = first + tl.arange(0, TILE)
        b_s, _ = sampled_scores(
            p_rows, p_position, p_key, b_key, i_head, i_head // heads_per_key, first_row, rows, keys, stride_rh,
            stride_rn, stride_kg, stride_kn, scale_log2, D, BLOCK_D, M, PRECISION)  # fmt: skip
        b_new = tl.maximum(b_max, b_s.max(1))
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_sum = b_sum * tl.exp2(b_max - b_base) + tl.exp2(b_s - b_base[:, None]).sum(1)
        b_max = b_new
    b_row = first_row + tl.arange(0, M)
    o_lse = (i_split.to(tl.int64) * heads + i_head) * rows + b_row
    tl.store(p_parts + o_lse, b_max + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum)), b_row < rows)


@triton.jit
def whole_lse(p_parts, i_head, b_row, m_row, rows, heads, splits, M: tl.constexpr):
    """Base-2 log-sum-exp [M] of rows b_row of one head over all splits."""
    b_max = tl.full([M], float("-inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)
    for i_split in range(0, splits):
        b_part = tl.load(p_parts + (i_split * heads + i_head).to(tl.int64) * rows + b_row, m_row, 0.0)
        b_new = tl.maximum(b_max, b_part)
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_sum = b_sum * tl.exp2(b_max - b_base) + tl.exp2(b_part - b_base)
        b_max = b_new
    return b_max + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum))


@triton.jit(do_not_specialize=LENGTHS, do_not_specialize_on_alignment=UNALIGNED)
def weights_kernel(p_rows, p_position, p_key, p_parts, p_lse, p_weight, p_vertical, rows, keys, heads, splits,
                   heads_per_key, heads_per_plan, stride_rh, stride_rn, stride_kg, stride_kn, scale_log2, scale_lse,
                   scale_mean, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr, TILE: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """P = 2^(s - lse), and vertical[key] = mean over heads of sum_i P; one program per (TILE keys, line head)."""
    i_tile = tl.program_id(0)
    i_plan = tl.program_id(1)
    b_key = i_tile * TILE + tl.arange(0, TILE)
    b_vertical = tl.zeros([TILE], tl.float32)
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for first_row in range(0, rows, M):
            b_row = first_row + tl.arange(0, M)
            m_row = b_row < rows
            # lse [M]
            b_lse = whole_lse(p_parts, i_head, b_row, m_row, rows, heads, splits, M)
            b_s, b_position = sampled_scores(
                p_rows, p_position, p_key, b_key, i_head, i_head // heads_per_key, first_row, rows, keys, stride_rh,
                stride_rn, stride_kg, stride_kn, scale_log2, D, BLOCK_D, M, PRECISION)  # fmt: skip
            b_p = tl.exp2(b_s - b_lse[:, None])
            b_vertical += b_p.sum(0)
            o_row = (i_head.to(tl.int64) * rows + b_row) * keys
            m_cell = (b_key[None, :] <= b_position[:, None]) & (b_key < keys)[None, :]
            tl.store(p_weight + o_row[:, None] + b_key[None, :], b_p, m_cell)
            if i_tile == 0:
                tl.store(p_lse + i_head.to(tl.int64) * rows + b_row, b_lse * scale_lse, m_row)
    tl.store(p_vertical + i_plan.to(tl.int64) * keys + b_key, b_vertical * scale_mean, b_key < keys)


@triton.jit(do_not_specialize=LENGTHS, do_not_specialize_on_alignment=UNALIGNED)
def slash_mass_kernel(p_weight, p_position, p_slash, rows, keys, heads_per_plan, scale_mean, OFFSETS: tl.constexpr,
                      ROWS: tl.constexpr):  # fmt: skip
    """slash[d] = mean over heads of sum_i P[i, p_i - d]; one program per (OFFSETS offsets, line head)."""
    i_plan = tl.program_id(1)
    b_offset = tl.program_id(0) * OFFSETS + tl.arange(0, OFFSETS)
    b_slash = tl.zeros([OFFSETS], tl.float32)
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for first_row in range(0, rows, ROWS):
            b_row = first_row + tl.arange(0, ROWS)
            b_position = tl.load(p_position + b_row, b_row < rows, -1).to(tl.int32)
            o_row = (i_head.to(tl.int64) * rows + b_row) * keys
            b_key = b_position[:, None] - b_offset[None, :]
            b_slash += tl.load(p_weight + o_row[:, None] + b_key, b_key >= 0, 0.0).sum(0)
    tl.store(p_slash + i_plan.to(tl.int64) * keys + b_offset, b_slash * scale_mean, b_offset < keys)


def line_mass_triton(rows: Tensor, positions: Tensor, key: Tensor, scaling: float, share: str = "head") -> LineMass:
    """As `line_mass`; lse is natural, the weights are [H, m, N], and unwritten where a row does not see."""
    (heads, count, _), keys, device = rows.shape, key.shape[1], key.device
    rows, key = contiguous_heads(rows), contiguous_heads(key)
    plans = heads if share == "head" else key.shape[0]
    members = heads // plans
    common = sample_arguments(rows, positions, key, scaling)
    splits = max(1, min(MOST_SPLITS, triton.cdiv(keys, 1024)))
    parts = torch.empty(splits, heads, count, dtype=torch.float32, device=device)
    row_lse_kernel[(splits, heads, triton.cdiv(count, common["M"]))](
        p_parts=parts, heads=heads, span=triton.cdiv(triton.cdiv(keys, splits), 64) * 64, **common
    )
    lse = torch.empty(heads, count, dtype=torch.float32, device=device)
    weights = torch.empty(heads, count, keys, dtype=torch.float32, device=device)
    vertical = torch.empty(plans, keys, dtype=torch.float32, device=device)
    slash = torch.empty(plans, keys, dtype=torch.float32, device=device)
    weights_kernel[(triton.cdiv(keys, common["TILE"]), plans)](
        p_parts=parts, p_lse=lse, p_weight=weights, p_vertical=vertical, heads=heads, splits=splits,
        heads_per_plan=members, scale_lse=1 / LOG2E, scale_mean=1 / members, **common,
    )  # fmt: skip
    slash_mass_kernel[(triton.cdiv(keys, OFFSETS), plans)](
        p_weight=weights, p_position=positions, p_slash=slash, rows=count, keys=keys, heads_per_plan=members,
        scale_mean=1 / members, OFFSETS=OFFSETS, ROWS=ROWS, num_warps=4, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return LineMass(lse, vertical, slash, weights)


def sample_arguments(rows: Tensor, positions: Tensor, key: Tensor, scaling: float) -> dict[str, Any]:
    """What every kernel over sampled rows takes, by keyword."""
    size = rows.shape[2]
    block, tile, warps = sample_shape(rows.dtype)
    assert positions.is_contiguous() and rows.stride(-1) == 1 and key.stride(-1) == 1
    return dict(
        p_rows=rows, p_position=positions, p_key=key, rows=rows.shape[1], keys=key.shape[1],
        heads_per_key=rows.shape[0] // key.shape[0], stride_rh=rows.stride(0), stride_rn=rows.stride(1),
        stride_kg=key.stride(0), stride_kn=key.stride(1), scale_log2=scaling * LOG2E, D=size,
        BLOCK_D=max(16, triton.next_power_of_2(size)), M=max(16, min(block, triton.next_power_of_2(rows.shape[1]))),
        TILE=tile, PRECISION="ieee" if rows.dtype == torch.float32 else "tf32", num_warps=warps,
        num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip


def sample_shape(dtype: torch.dtype) -> tuple[int, int, int]:
    """Rows and keys a program holds, and its warps. Exact fp32 has no matrix unit: only small blocks do not spill."""
    return (16, 32, 8) if dtype == torch.float32 else (64, 32, 4)


def contiguous_heads(part: Tensor) -> Tensor:
    """The tensor itself if its last dimension is contiguous, as the kernels need, or a copy that is."""
    return part if part.stride(-1) == 1 else part.contiguous()
