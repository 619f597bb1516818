"""Page scores in Triton: one program per (TILE pages, key-value head) reads the bounds once for all its heads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.lines_triton import contiguous_heads

# Query heads that are multiplied at once: a product's least.
MEMBERS = 16
WARPS = 4


# How many pages there is room for, and where the position stands, compiles nothing anew.
@triton.jit(do_not_specialize=["capacity"], do_not_specialize_on_alignment=["p_position", "p_out"])
def page_scores_kernel(p_q, p_low, p_high, p_position, p_out, capacity, members, stride_qh, stride_lg, stride_lp,
                       stride_hg, stride_hp, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr,
                       TILE: tl.constexpr, PAGE: tl.constexpr, MEAN: tl.constexpr,
                       PRECISION: tl.constexpr):  # fmt: skip
    """scores[g, p] = max or mean over h of (max(q_h, 0) . high_p + min(q_h, 0) . low_p); -inf from position / PAGE."""
    i_group = tl.program_id(1).to(tl.int64)
    b_page = tl.program_id(0) * TILE + tl.arange(0, TILE)
    b_d = tl.arange(0, BLOCK_D)
    b_row = tl.arange(0, M)
    pages = tl.load(p_position) // PAGE
    m_page = (b_page < pages) & (b_page < capacity)
    o_page = b_page.to(tl.int64)
    m_tile = (b_d < D)[:, None] & m_page[None, :]
    # bounds [BLOCK_D, TILE]
    b_low = tl.load(p_low + i_group * stride_lg + o_page[None, :] * stride_lp + b_d[:, None], m_tile, 0.0)
    b_high = tl.load(p_high + i_group * stride_hg + o_page[None, :] * stride_hp + b_d[:, None], m_tile, 0.0)
    b_score = tl.full([TILE], 0.0 if MEAN else float("-inf"), tl.float32)
    for first in range(0, members, M):
        m_member = first + b_row < members
        o_head = i_group * members + first + b_row
        # q [M, BLOCK_D]
        b_q = tl.load(p_q + o_head[:, None] * stride_qh + b_d[None, :], m_member[:, None] & (b_d < D)[None, :], 0.0)
        b_zero = tl.zeros_like(b_q)
        b_s = tl.dot(tl.maximum(b_q, b_zero), b_high, input_precision=PRECISION)
        b_s = tl.dot(tl.minimum(b_q, b_zero), b_low, b_s, input_precision=PRECISION)
        if MEAN:
            b_score += b_s.sum(0)
        else:
            b_score = tl.maximum(b_score, tl.where(m_member[:, None], b_s, float("-inf")).max(0))
    if MEAN:
        b_score = b_score / members
    b_score = tl.where(m_page & (b_score == b_score), b_score, float("-inf"))
    tl.store(p_out + i_group * capacity + b_page, b_score, b_page < capacity)


def page_scores_triton(query: Tensor, low: Tensor, high: Tensor, position: Tensor, page: int, pool: str) -> Tensor:
    """As `page_scores`."""
    (heads, size), (groups, capacity, _) = query.shape, low.shape
    query, low, high = (contiguous_heads(part) for part in (query, low, high))
    out = torch.empty(groups, capacity, dtype=torch.float32, device=low.device)
    tile = 64 if size * query.element_size() <= 256 else 32
    page_scores_kernel[(triton.cdiv(capacity, tile), groups)](
        p_q=query, p_low=low, p_high=high, p_position=position, p_out=out, capacity=capacity, members=heads // groups,
        stride_qh=query.stride(0), stride_lg=low.stride(0), stride_lp=low.stride(1), stride_hg=high.stride(0),
        stride_hp=high.stride(1), D=size, BLOCK_D=max(16, triton.next_power_of_2(size)), M=MEMBERS, TILE=tile,
        PAGE=page, MEAN=pool == "mean", PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        num_warps=WARPS, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return out
