"""A decode step's writes in Triton: one program per query head, and one per key-value head."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.rotate_triton import rotated
from loopserve_kernels.rotation import Rotation
from loopserve_kernels.step_place import RingPlace, StorePlace, WorkingPlace


# A layer's numbers stand anywhere in the cursor's tensors.
@triton.jit(
    do_not_specialize=["stride_sk", "stride_sv", "stride_rh", "stride_wk", "stride_wv"],
    do_not_specialize_on_alignment=["p_row", "p_slot", "p_position", "p_ring_position", "p_length"],
)
def step_write_kernel(p_q, p_k, p_v, p_q_weight, p_k_weight, p_cos, p_sin, p_out, p_store_k, p_store_v, p_row, p_ring,
                      p_ring_position, p_slot, p_position, p_working_k, p_working_v, p_length, stride_qh, stride_kg,
                      stride_vg, stride_sk, stride_sv, stride_rh, stride_wk, stride_wv, heads, eps,
                      D: tl.constexpr, BLOCK_D: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr,
                      RING: tl.constexpr, WORKING: tl.constexpr):  # fmt: skip
    """Turns the token's queries and keys by R numbers (0: not at all) and writes all where it belongs."""
    i_head = tl.program_id(0).to(tl.int64)
    b_d = tl.arange(0, BLOCK_D)
    m_d = b_d < D
    if i_head < heads:
        p_x = p_q + i_head * stride_qh
        if R > 0:
            b_q = rotated(p_x, p_q_weight, p_cos, p_sin, eps, D, BLOCK_D, R, NORM).to(p_out.dtype.element_ty)
            tl.store(p_out + i_head * D + b_d, b_q, m_d)
        else:
            # q [BLOCK_D]
            b_q = tl.load(p_x + b_d, m_d, 0.0)
        if RING:
            i_slot = tl.load(p_slot)
            tl.store(p_ring + i_head * stride_rh + i_slot * D + b_d, b_q, m_d)
            if i_head == 0:
                tl.store(p_ring_position + i_slot, tl.load(p_position))
    else:
        i_group = i_head - heads
        p_x = p_k + i_group * stride_kg
        if R > 0:
            b_k = rotated(p_x, p_k_weight, p_cos, p_sin, eps, D, BLOCK_D, R, NORM)
            b_k = b_k.to(p_store_k.dtype.element_ty)
        else:
            # k [BLOCK_D]
            b_k = tl.load(p_x + b_d, m_d, 0.0)
        # v [BLOCK_D]
        b_v = tl.load(p_v + i_group * stride_vg + b_d, m_d, 0.0)
        i_row = tl.load(p_row)
        tl.store(p_store_k + i_group * stride_sk + i_row * D + b_d, b_k, m_d)
        tl.store(p_store_v + i_group * stride_sv + i_row * D + b_d, b_v, m_d)
        if WORKING:
            length = tl.load(p_length + i_group)
            i_place = length.to(tl.int64)
            tl.store(p_working_k + i_group * stride_wk + i_place * D + b_d, b_k, m_d)
            tl.store(p_working_v + i_group * stride_wv + i_place * D + b_d, b_v, m_d)
            tl.store(p_length + i_group, length + 1)


def step_write_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    store: StorePlace,
    ring: RingPlace | None = None,
    working: WorkingPlace | None = None,
    rotation: Rotation | None = None,
) -> Tensor:
    """As `step_write`."""
    heads, size = query.shape
    assert query.stride(1) == key.stride(1) == value.stride(1) == 1
    rows = [*store[:2], *([] if ring is None else [ring.queries]), *([] if working is None else working[:2])]
    assert all(part.stride()[1:] == (size, 1) for part in rows), "the rows of a head lie one after the other"
    # What is not there is never looked at; a kernel must be given something in its place.
    to_ring = ring or RingPlace(query, store.row, store.row, store.row)
    to_working = working or WorkingPlace(store.keys, store.values, store.row)
    turned = rotation or Rotation(query, query)
    normed = turned.query_weight is not None
    out = query if rotation is None else torch.empty(heads, size, dtype=query.dtype, device=query.device)
    step_write_kernel[(heads + key.shape[0],)](
        p_q=query, p_k=key, p_v=value, p_q_weight=turned.query_weight if normed else query,
        p_k_weight=turned.key_weight if normed else key, p_cos=turned.cos, p_sin=turned.sin, p_out=out,
        p_store_k=store.keys, p_store_v=store.values, p_row=store.row, p_ring=to_ring.queries,
        p_ring_position=to_ring.positions, p_slot=to_ring.slot, p_position=to_ring.position,
        p_working_k=to_working.keys, p_working_v=to_working.values, p_length=to_working.lengths,
        stride_qh=query.stride(0), stride_kg=key.stride(0), stride_vg=value.stride(0), stride_sk=store.keys.stride(0),
        stride_sv=store.values.stride(0), stride_rh=to_ring.queries.stride(0), stride_wk=to_working.keys.stride(0),
        stride_wv=to_working.values.stride(0), heads=heads, eps=turned.eps, D=size,
        BLOCK_D=triton.next_power_of_2(size), R=0 if rotation is None else turned.cos.shape[1], NORM=normed,
        RING=ring is not None, WORKING=working is not None, num_warps=1, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return out
