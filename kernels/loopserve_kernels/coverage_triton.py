"""Coverage in Triton: each program recomputes the weights of its keys and adds them up by rank or by bucket."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.lines_triton import FIXED_POINT, LOG2E, contiguous_heads, sample_arguments, sampled_scores


@triton.jit
def coverage_histogram_kernel(p_rows, p_position, p_key, p_lse, p_vertical_rank, p_slash_rank, p_histogram, rows, keys,
                              heads_per_key, heads_per_plan, size, stride_vertical, stride_slash, stride_rh, stride_rn,
                              stride_kg, stride_kn, scale_log2, unit, D: tl.constexpr, BLOCK_D: tl.constexpr,
                              M: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """histogram[min(rank_v[key], rank_s[p_i - key])] += P (fixed point); one program per (TILE keys, line head)."""
    i_plan = tl.program_id(1)
    b_key = tl.program_id(0) * TILE + tl.arange(0, TILE)
    # ranks of the verticals [TILE]
    b_vertical = tl.load(p_vertical_rank + i_plan.to(tl.int64) * stride_vertical + b_key, b_key < keys, size)
    p_slash_rank += i_plan.to(tl.int64) * stride_slash
    p_histogram += i_plan.to(tl.int64) * size
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for first_row in range(0, rows, M):
            b_s, b_position = sampled_scores(
                p_rows, p_position, p_key, b_key, i_head, i_head // heads_per_key, first_row, rows, keys, stride_rh,
                stride_rn, stride_kg, stride_kn, scale_log2, D, BLOCK_D, M, PRECISION)  # fmt: skip
            b_row = first_row + tl.arange(0, M)
            # lse [M]
            b_lse = tl.load(p_lse + i_head.to(tl.int64) * rows + b_row, b_row < rows, 0.0)
            b_p = tl.exp2(b_s - b_lse[:, None])
            b_offset = b_position[:, None] - b_key[None, :]
            # ranks of the slashes [M, TILE]
            b_slash = tl.load(p_slash_rank + b_offset, b_offset >= 0, size)
            b_rank = tl.minimum(b_slash, b_vertical[None, :])
            # Most cells are on no line; they would all queue for one address, and nobody reads it.
            m_line = (b_offset >= 0) & (b_rank < size)
            tl.atomic_add(p_histogram + b_rank, (b_p * unit).to(tl.int64), m_line, sem="relaxed")


@triton.jit
def bucket_mass_kernel(p_rows, p_position, p_key, p_lse, p_bucket, p_out, rows, keys, heads_per_key, heads_per_plan,
                       buckets, stride_bucket, stride_rh, stride_rn, stride_kg, stride_kn, scale_log2,
                       D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr, TILE: tl.constexpr,
                       PRECISION: tl.constexpr):  # fmt: skip
    """out[b, key] = sum_i P where bucket[p_i - key] = b; a program owns TILE keys of a line head."""
    i_plan = tl.program_id(1)
    b_key = tl.program_id(0) * TILE + tl.arange(0, TILE)
    p_bucket += i_plan.to(tl.int64) * stride_bucket
    p_out += i_plan.to(tl.int64) * buckets * keys + b_key
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for first_row in range(0, rows, M):
            b_s, b_position = sampled_scores(
                p_rows, p_position, p_key, b_key, i_head, i_head // heads_per_key, first_row, rows, keys, stride_rh,
                stride_rn, stride_kg, stride_kn, scale_log2, D, BLOCK_D, M, PRECISION)  # fmt: skip
            b_row = first_row + tl.arange(0, M)
            # lse [M]
            b_lse = tl.load(p_lse + i_head.to(tl.int64) * rows + b_row, b_row < rows, 0.0)
            b_p = tl.exp2(b_s - b_lse[:, None])
            b_offset = b_position[:, None] - b_key[None, :]
            # buckets of the offsets [M, TILE]
            b_bucket = tl.load(p_bucket + b_offset, b_offset >= 0, -1)
            p_own = p_out
            for i_bucket in range(0, buckets):
                # out [TILE]; zeroed by the launcher
                b_old = tl.load(p_own, b_key < keys, 0.0)
                tl.store(p_own, b_old + tl.where(b_bucket == i_bucket, b_p, 0.0).sum(0), b_key < keys)
                p_own += keys


def coverage_histogram_triton(
    rows: Tensor, positions: Tensor, key: Tensor, scaling: float, lse: Tensor, vertical_rank: Tensor,
    slash_rank: Tensor, size: int,
) -> Tensor:  # fmt: skip
    """As `coverage_histogram`."""
    plans, members = vertical_rank.shape[0], rows.shape[0] // vertical_rank.shape[0]
    assert vertical_rank.stride(-1) == slash_rank.stride(-1) == 1
    common = sample_arguments(contiguous_heads(rows), positions, contiguous_heads(key), scaling)
    histogram = torch.zeros(plans, size, dtype=torch.int64, device=key.device)
    coverage_histogram_kernel[(triton.cdiv(key.shape[1], common["TILE"]), plans)](
        p_lse=lse * LOG2E, p_vertical_rank=vertical_rank, p_slash_rank=slash_rank, p_histogram=histogram,
        heads_per_plan=members, size=size, stride_vertical=vertical_rank.stride(0), stride_slash=slash_rank.stride(0),
        unit=FIXED_POINT, **common,
    )  # fmt: skip
    return (histogram.double() / (FIXED_POINT * members)).float()


def bucket_mass_triton(
    rows: Tensor, positions: Tensor, key: Tensor, scaling: float, lse: Tensor, bucket: Tensor, buckets: int
) -> Tensor:
    """As `bucket_mass`."""
    plans, members, keys = bucket.shape[0], rows.shape[0] // bucket.shape[0], key.shape[1]
    assert bucket.stride(-1) == 1
    common = sample_arguments(contiguous_heads(rows), positions, contiguous_heads(key), scaling)
    out = torch.zeros(plans, buckets, keys, dtype=torch.float32, device=key.device)
    bucket_mass_kernel[(triton.cdiv(keys, common["TILE"]), plans)](
        p_lse=lse * LOG2E, p_bucket=bucket, p_out=out, heads_per_plan=members, buckets=buckets,
        stride_bucket=bucket.stride(0), **common,
    )  # fmt: skip
    return out / members
