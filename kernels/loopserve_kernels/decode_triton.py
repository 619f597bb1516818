"""Decode attention in Triton: one program per (split of the keys, key-value head, M of its query heads).

The query heads of a group are the rows of one tile, so a key is loaded once for all of them and never repeated. A
single row per head leaves few programs: the keys are split, and the parts merged by their log-sum-exp. How many
splits there are follows from the capacity and the device; which keys each takes, from the length, read by the kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.device import processors
from loopserve_kernels.lines_triton import LOG2E, contiguous_heads
from loopserve_kernels.splits_triton import merge_splits
from loopserve_kernels.vertical_slash_triton import attend_block

MOST_SPLITS = 64
LEAST_KEYS = 64  # a split of fewer keys costs more to merge than it saves


@triton.jit(do_not_specialize_on_alignment=["p_length"])
def decode_attention_kernel(p_q, p_k, p_v, p_length, p_out, p_lse, stride_qh, stride_kg, stride_kn, stride_vg,
                            stride_vn, stride_os, stride_oh, heads, members, scale_log2, D: tl.constexpr,
                            BLOCK_D: tl.constexpr, M: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
                            SPLIT: tl.constexpr):  # fmt: skip
    """Computes sum_j 2^(s_j - m) v_j / sum_j 2^(s_j - m) over a split's keys j; with SPLIT also m + log2 of the sum."""
    i_split = tl.program_id(0)
    i_group = tl.program_id(1).to(tl.int64)
    b_member = tl.program_id(2) * M + tl.arange(0, M)
    m_member = b_member < members
    b_head = i_group * members + b_member
    b_d = tl.arange(0, BLOCK_D)
    b_lane = tl.arange(0, TILE)
    p_k += i_group * stride_kg
    p_v += i_group * stride_vg
    # q [M, BLOCK_D]
    b_q = tl.load(p_q + b_head[:, None] * stride_qh + b_d[None, :], m_member[:, None] & (b_d < D)[None, :], 0.0)
    b_acc = tl.zeros([M, BLOCK_D], tl.float32)
    b_max = tl.full([M], float("-inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)

    length = tl.load(p_length + i_group)
    # Whole tiles, shared evenly: every split works at any length, and one that gets nothing weighs nothing.
    share = tl.cdiv(tl.cdiv(length, TILE), tl.num_programs(0)) * TILE
    for first in range(i_split * share, tl.minimum(i_split * share + share, length), TILE):
        b_key = first + b_lane
        b_acc, b_max, b_sum = attend_block(b_q, p_k, p_v, b_key, b_key < length, b_key, b_acc, b_max, b_sum,
                                           stride_kn, stride_vn, scale_log2, D, BLOCK_D, PRECISION, False)  # fmt: skip

    b_acc = b_acc / tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    p_out += i_split.to(tl.int64) * stride_os + b_head[:, None] * stride_oh + b_d[None, :]
    tl.store(p_out, b_acc.to(p_out.dtype.element_ty), m_member[:, None] & (b_d < D)[None, :])
    if SPLIT:
        b_lse = b_max + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum))
        tl.store(p_lse + i_split.to(tl.int64) * heads + b_head, b_lse, m_member)


def decode_attention_triton(
    query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float, splits: int | None = None
) -> Tensor:
    """As `decode_attention`; `splits` is chosen from the capacity and the device."""
    heads, size = query.shape
    groups, capacity = key.shape[:2]
    query, key, value = (contiguous_heads(part) for part in (query, key, value))
    assert lengths.is_contiguous()
    members = heads // groups
    block, tile, warps, stages = decode_shape(members, size, query.dtype)
    blocks = triton.cdiv(members, block)
    splits = decode_splits(groups * blocks, capacity, query.device) if splits is None else splits
    out = torch.empty(heads, size, dtype=query.dtype, device=query.device)
    part, lse = out[None], torch.empty(0, device=query.device)
    if splits > 1:
        part = torch.empty(splits, heads, size, dtype=torch.float32, device=query.device)
        lse = torch.empty(splits, heads, dtype=torch.float32, device=query.device)
    decode_attention_kernel[(splits, groups, blocks)](
        p_q=query, p_k=key, p_v=value, p_length=lengths, p_out=part, p_lse=lse, stride_qh=query.stride(0),
        stride_kg=key.stride(0), stride_kn=key.stride(1), stride_vg=value.stride(0), stride_vn=value.stride(1),
        stride_os=part.stride(0), stride_oh=part.stride(1), heads=heads, members=members,
        scale_log2=scaling * LOG2E, D=size, BLOCK_D=max(16, triton.next_power_of_2(size)), M=block, TILE=tile,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32", SPLIT=splits > 1, num_warps=warps,
        num_stages=stages, enable_fp_fusion=True,
    )  # fmt: skip
    if splits > 1:
        merge_splits(part[:, :, None], lse[:, :, None], out[:, None])
    return out


def decode_shape(members: int, size: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Query heads and keys a program holds, its warps and stages: fixed, so that runs agree and capture tunes nothing.

    Reading is all that takes time, so a tile is as large as two of them in flight leave room for a second program.
    """
    block = max(16, triton.next_power_of_2(members))
    # Exact fp32 products have no matrix unit: small blocks keep them in registers.
    if dtype == torch.float32:
        return 16, 32 if size <= 64 else 16, 4, 2
    return min(block, 64), 64 if size <= 128 else 32, 4, 3


def decode_splits(programs: int, capacity: int, device: torch.device) -> int:
    """Splits that give each multiprocessor about two programs, as far as the capacity has keys for them."""
    wanted = triton.cdiv(2 * processors(device), programs)
    return max(1, min(MOST_SPLITS, wanted, triton.cdiv(capacity, LEAST_KEYS)))
