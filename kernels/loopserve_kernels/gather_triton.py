"""Gather in Triton: one program per (ROWS places, key-value head) copies its rows of keys and of values."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

ROWS = 16
WARPS = 4


# How many keys are chosen, and where their list begins, compiles nothing anew.
@triton.jit(
    do_not_specialize=["width", "stride_index"], do_not_specialize_on_alignment=["p_index", "p_count", "p_out_count"]
)
def gather_keys_kernel(p_key, p_value, p_index, p_count, p_out_key, p_out_value, p_out_count, width, stride_kg,
                       stride_kn, stride_vg, stride_vn, stride_index, stride_okg, stride_okn, stride_ovg, stride_ovn,
                       D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """out[g, t] = store[g, index[g, t]] for t < count[g], and the counts; key and value may be stored apart."""
    i_group = tl.program_id(1).to(tl.int64)
    b_place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    b_d = tl.arange(0, BLOCK_D)
    count = tl.load(p_count + i_group)
    m_place = b_place < tl.minimum(count, width)
    # index [ROWS]
    b_key = tl.load(p_index + i_group * stride_index + b_place, m_place, 0).to(tl.int64)
    b_out = b_place.to(tl.int64)
    m_row = m_place[:, None] & (b_d < D)[None, :]
    # k [ROWS, BLOCK_D]
    b_k = tl.load(p_key + i_group * stride_kg + b_key[:, None] * stride_kn + b_d[None, :], m_row)
    # v [ROWS, BLOCK_D]
    b_v = tl.load(p_value + i_group * stride_vg + b_key[:, None] * stride_vn + b_d[None, :], m_row)
    tl.store(p_out_key + i_group * stride_okg + b_out[:, None] * stride_okn + b_d[None, :], b_k, m_row)
    tl.store(p_out_value + i_group * stride_ovg + b_out[:, None] * stride_ovn + b_d[None, :], b_v, m_row)
    if tl.program_id(0) == 0:
        tl.store(p_out_count + i_group, count)


def gather_keys_triton(
    store_key: Tensor,
    store_value: Tensor,
    index: Tensor,
    count: Tensor,
    out_key: Tensor,
    out_value: Tensor,
    out_count: Tensor | None = None,
) -> None:
    """As `gather_keys`."""
    (groups, width), size = index.shape, store_key.shape[2]
    assert all(part.stride(-1) == 1 for part in (store_key, store_value, index, out_key, out_value))
    out_count = count if out_count is None else out_count
    assert count.is_contiguous() and out_count.is_contiguous()
    gather_keys_kernel[(max(1, triton.cdiv(width, ROWS)), groups)](
        p_key=store_key, p_value=store_value, p_index=index, p_count=count, p_out_key=out_key, p_out_value=out_value,
        p_out_count=out_count, width=width, stride_kg=store_key.stride(0), stride_kn=store_key.stride(1),
        stride_vg=store_value.stride(0), stride_vn=store_value.stride(1), stride_index=index.stride(0),
        stride_okg=out_key.stride(0), stride_okn=out_key.stride(1), stride_ovg=out_value.stride(0),
        stride_ovn=out_value.stride(1), D=size, BLOCK_D=triton.next_power_of_2(size), ROWS=ROWS,
        num_warps=WARPS, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
