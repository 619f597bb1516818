"""Splits: one row block's keys shared by several programs, whose parts are merged by their log-sum-exp.

A short question over a long history has too few row blocks to fill a device; splitting the keys does.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.device import processors

MOST_SPLITS = 32
MOST_MERGED = 64  # what attention splits at most, here and in decoding
MERGE_WARPS = 4


@triton.jit(do_not_specialize=["new", "splits"])
def merge_splits_kernel(p_part, p_lse, p_out, stride_oh, stride_on, heads, new, splits, D: tl.constexpr,
                        BLOCK_D: tl.constexpr, MOST: tl.constexpr, BLOCK_S: tl.constexpr):  # fmt: skip
    """out[h, i] = sum_s 2^(lse_s - max lse) part_s / sum_s 2^(lse_s - max lse); part [S, H, n, D], lse [S, H, n]."""
    i_row = tl.program_id(0)
    i_head = tl.program_id(1)
    b_d = tl.arange(0, BLOCK_D)
    b_all = tl.arange(0, MOST)
    # lse [MOST]
    o_all = (b_all.to(tl.int64) * heads + i_head) * new + i_row
    b_lse = tl.load(p_lse + o_all, b_all < splits, float("-inf"))
    most = b_lse.max(0)
    total = tl.exp2(b_lse - most).sum(0)
    b_acc = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, splits, BLOCK_S):
        b_split = first + tl.arange(0, BLOCK_S)
        o_row = (b_split.to(tl.int64) * heads + i_head) * new + i_row
        # lse [BLOCK_S]
        b_weight = tl.exp2(tl.load(p_lse + o_row, b_split < splits, float("-inf")) - most)
        # part [BLOCK_S, BLOCK_D]
        m_part = (b_split < splits)[:, None] & (b_d < D)[None, :]
        b_part = tl.load(p_part + o_row[:, None] * D + b_d[None, :], m_part, 0.0)
        b_acc += (b_part * b_weight[:, None]).sum(0)
    p_out += i_head.to(tl.int64) * stride_oh + i_row.to(tl.int64) * stride_on + b_d
    tl.store(p_out, (b_acc / total).to(p_out.dtype.element_ty), b_d < D)


def merge_splits(part: Tensor, lse: Tensor, out: Tensor) -> None:
    """Write attention over all keys to out [H, n, D] from fp32 parts [S, H, n, D] and their base-2 lse [S, H, n].

    S is at most 64, and no constant of the kernel: one compilation merges any number.
    """
    splits, heads, new, size = part.shape
    assert part.is_contiguous() and lse.is_contiguous() and out.stride(-1) == 1
    assert splits <= MOST_MERGED, f"{splits} splits of at most {MOST_MERGED}"
    merge_splits_kernel[(new, heads)](
        p_part=part, p_lse=lse, p_out=out, stride_oh=out.stride(0), stride_on=out.stride(1), heads=heads, new=new,
        splits=splits, D=size, BLOCK_D=triton.next_power_of_2(size), MOST=MOST_MERGED, BLOCK_S=8,
        num_warps=MERGE_WARPS, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip


def split_count(programs: int, device: torch.device) -> int:
    """Splits that give each multiprocessor about two programs; a power of two, at most 32."""
    count = processors(device)
    wanted = math.ceil(2 * count / programs)
    return min(MOST_SPLITS, triton.next_power_of_2(wanted)) if programs < count else 1
