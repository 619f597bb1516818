"""Rotary position embedding in Triton: one program per row and head, queries first and then keys."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.rotation import Rotation


@triton.jit
def rotated(p_x, p_weight, p_cos, p_sin, eps, D: tl.constexpr, BLOCK_D: tl.constexpr, R: tl.constexpr,
            NORM: tl.constexpr):  # fmt: skip
    """One head's row [BLOCK_D], fp32: weight * x / sqrt(mean(x^2) + eps) with NORM, then turned by cos and sin."""
    b_d = tl.arange(0, BLOCK_D)
    m_d = b_d < D
    m_r = b_d < R
    # the number that each is turned with: half a rotation's width away, and negative for the lower half
    b_pair = tl.where(b_d < R // 2, b_d + R // 2, b_d - R // 2)
    # x, its pair [BLOCK_D]
    b_x = tl.load(p_x + b_d, m_d, 0.0)
    b_y = tl.load(p_x + b_pair, m_r, 0.0)
    b_dtype = b_x.dtype
    b_x = b_x.to(tl.float32)
    b_y = b_y.to(tl.float32)
    if NORM:
        b_scale = tl.rsqrt(tl.sum(b_x * b_x, 0) / D + eps)
        # weight [BLOCK_D]
        b_weight = tl.load(p_weight + b_d, m_d, 0.0).to(tl.float32)
        b_other = tl.load(p_weight + b_pair, m_r, 0.0).to(tl.float32)
        b_x = (b_weight * (b_x * b_scale).to(b_dtype).to(tl.float32)).to(b_dtype).to(tl.float32)
        b_y = (b_other * (b_y * b_scale).to(b_dtype).to(tl.float32)).to(b_dtype).to(tl.float32)
    # cos, sin [BLOCK_D]
    b_cos = tl.load(p_cos + b_d, m_r, 1.0).to(tl.float32)
    b_sin = tl.load(p_sin + b_d, m_r, 0.0).to(tl.float32)
    return b_x * b_cos + tl.where(b_d < R // 2, -b_y, b_y) * b_sin


@triton.jit(do_not_specialize=["stride_qn", "stride_kn", "stride_cn", "stride_sn"])
def rotate_kernel(p_q, p_k, p_q_weight, p_k_weight, p_cos, p_sin, p_q_out, p_k_out, stride_qn, stride_qh, stride_kn,
                  stride_kg, stride_cn, stride_sn, heads, groups, eps, D: tl.constexpr, BLOCK_D: tl.constexpr,
                  R: tl.constexpr, NORM: tl.constexpr):  # fmt: skip
    """out[i, h] = x[i, h] turned to position i, for queries and keys."""
    i_row = tl.program_id(0).to(tl.int64)
    i_head = tl.program_id(1).to(tl.int64)
    b_d = tl.arange(0, BLOCK_D)
    p_cos += i_row * stride_cn
    p_sin += i_row * stride_sn
    if i_head < heads:
        p_x = p_q + i_row * stride_qn + i_head * stride_qh
        b_out = rotated(p_x, p_q_weight, p_cos, p_sin, eps, D, BLOCK_D, R, NORM)
        tl.store(p_q_out + (i_row * heads + i_head) * D + b_d, b_out.to(p_q_out.dtype.element_ty), b_d < D)
    else:
        i_group = i_head - heads
        p_x = p_k + i_row * stride_kn + i_group * stride_kg
        b_out = rotated(p_x, p_k_weight, p_cos, p_sin, eps, D, BLOCK_D, R, NORM)
        tl.store(p_k_out + (i_row * groups + i_group) * D + b_d, b_out.to(p_k_out.dtype.element_ty), b_d < D)


def rotate_triton(query: Tensor, key: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """As `rotate`."""
    rows, heads, size = query.shape
    groups = key.shape[1]
    cos, sin = rotation.cos, rotation.sin
    assert query.stride(2) == key.stride(2) == cos.stride(1) == sin.stride(1) == 1
    outs = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in (query, key)]
    normed = rotation.query_weight is not None
    rotate_kernel[(rows, heads + groups)](
        p_q=query, p_k=key, p_q_weight=rotation.query_weight if normed else query,
        p_k_weight=rotation.key_weight if normed else key, p_cos=cos, p_sin=sin, p_q_out=outs[0], p_k_out=outs[1],
        stride_qn=query.stride(0), stride_qh=query.stride(1), stride_kn=key.stride(0), stride_kg=key.stride(1),
        stride_cn=cos.stride(0), stride_sn=sin.stride(0), heads=heads, groups=groups, eps=rotation.eps, D=size,
        BLOCK_D=triton.next_power_of_2(size), R=cos.shape[1], NORM=normed, num_warps=1, num_stages=1,
        enable_fp_fusion=True,
    )  # fmt: skip
    return outs[0], outs[1]
