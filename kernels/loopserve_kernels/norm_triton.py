"""RMSNorm with the addition before it in Triton: one program per row, which it holds whole."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["stride_xn", "stride_dn"])
def add_rms_norm_kernel(p_x, p_delta, p_weight, p_sum, p_out, stride_xn, stride_dn, eps, C: tl.constexpr,
                        BLOCK_C: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """Sum = x + delta; out[c] = weight[c] * sum[c] / sqrt(mean(sum^2) + eps)."""
    i_row = tl.program_id(0).to(tl.int64)
    b_c = tl.arange(0, BLOCK_C)
    m_c = b_c < C
    # x [BLOCK_C]
    b_x = tl.load(p_x + i_row * stride_xn + b_c, m_c, 0.0)
    if ADD:
        # delta [BLOCK_C]
        b_delta = tl.load(p_delta + i_row * stride_dn + b_c, m_c, 0.0)
        b_x = (b_x.to(tl.float32) + b_delta.to(tl.float32)).to(b_x.dtype)
        tl.store(p_sum + i_row * C + b_c, b_x, m_c)
    b_wide = b_x.to(tl.float32)
    b_norm = b_wide * tl.rsqrt(tl.sum(b_wide * b_wide, 0) / C + eps)
    # weight [BLOCK_C]
    b_weight = tl.load(p_weight + b_c, m_c, 0.0)
    b_out = b_weight.to(tl.float32) * b_norm.to(b_x.dtype).to(tl.float32)
    tl.store(p_out + i_row * C + b_c, b_out.to(p_out.dtype.element_ty), m_c)


def add_rms_norm_triton(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As `add_rms_norm`."""
    rows, width = x.shape
    assert x.stride(1) == 1 and weight.is_contiguous() and (delta is None or delta.stride(1) == 1)
    total = x if delta is None else torch.empty_like(x, memory_format=torch.contiguous_format)
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(width)
    add_rms_norm_kernel[(rows,)](
        p_x=x, p_delta=x if delta is None else delta, p_weight=weight, p_sum=total, p_out=out, stride_xn=x.stride(0),
        stride_dn=0 if delta is None else delta.stride(0), eps=eps, C=width, BLOCK_C=block,
        ADD=delta is not None, num_warps=norm_warps(block), num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return total, out


def norm_warps(block: int) -> int:
    """Warps for a row of so many numbers: eight of them per thread, as far as a block has threads."""
    return max(1, min(16, block // 256))
