"""Key mass in Triton: two passes over the keys, first the log-sum-exp of every query, by splits, then the weights.

A tile has M rows: the R slots of M / R query heads of one group, so that keys are loaded once for all of them. In the
second pass a program owns its keys and adds up in a fixed order: no atomics, and repeated runs agree to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.lines_triton import LOG2E, contiguous_heads

MOST_SPLITS = 64
MERGED_ROWS = 32
LEAST_KEYS = 512
# Only the first pass walks over keys, so only there are loads worth running ahead.
LSE_STAGES, MASS_STAGES = 3, 1
MASS_WARPS = 4  # with 8 it spills in fp32 on sm_120 under Triton 3.6
# Numbers that change while a chat goes on: no kernel is compiled anew for them.
LENGTHS = ["slots", "keys", "span"]


@triton.jit
def ring_block(p_query, p_position, first_head, first_slot, i_group, members, count, stride_qh, stride_qr,
               D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """Queries [M, BLOCK_D], heads, slots and positions [M]; a row that is not there is 0 and stands at -1."""
    b_row = tl.arange(0, M)
    b_slot = first_slot + b_row % R
    b_member = first_head + b_row // R
    m_row = (b_member < members) & (b_slot < count)
    b_head = i_group * members + b_member
    b_d = tl.arange(0, BLOCK_D)
    # q [M, BLOCK_D]
    p_query += b_head.to(tl.int64)[:, None] * stride_qh + b_slot.to(tl.int64)[:, None] * stride_qr + b_d[None, :]
    b_q = tl.load(p_query, m_row[:, None] & (b_d < D)[None, :], 0.0)
    # positions [M]
    b_position = tl.load(p_position + b_slot, m_row, -1).to(tl.int32)
    return b_q, b_head, b_slot, b_position


@triton.jit(do_not_specialize=LENGTHS, do_not_specialize_on_alignment=["p_position", "p_count"])
def ring_lse_kernel(p_query, p_position, p_count, p_key, p_lse, slots, keys, heads, members, span, stride_qh,
                    stride_qr, stride_kg, stride_kn, scale_log2, D: tl.constexpr, BLOCK_D: tl.constexpr,
                    M: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
                    COUNTED: tl.constexpr):  # fmt: skip
    """lse[split, h, i] = log2 sum over the split's keys of 2^s; one program per (split, group, M rows)."""
    i_split = tl.program_id(0)
    i_group = tl.program_id(1)
    slot_blocks = tl.cdiv(slots, R)
    first_head = tl.program_id(2) // slot_blocks * (M // R)
    first_slot = tl.program_id(2) % slot_blocks * R
    count = slots
    if COUNTED:
        count = tl.load(p_count)
    b_q, b_head, b_slot, b_position = ring_block(
        p_query, p_position, first_head, first_slot, i_group, members, count, stride_qh, stride_qr, D, BLOCK_D, M, R
    )
    b_max = tl.full([M], float("-inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)
    b_d = tl.arange(0, BLOCK_D)
    p_key += i_group.to(tl.int64) * stride_kg
    end = tl.minimum(tl.minimum(i_split * span + span, keys), b_position.max(0) + 1)
    for first in range(i_split * span, end, TILE):
        b_key = first + tl.arange(0, TILE)
        # k [BLOCK_D, TILE]
        p_k = p_key + b_key.to(tl.int64)[None, :] * stride_kn + b_d[:, None]
        b_k = tl.load(p_k, (b_key < end)[None, :] & (b_d < D)[:, None], 0.0)
        b_s = tl.dot(b_q, b_k, input_precision=PRECISION) * scale_log2
        b_s = tl.where(b_key[None, :] <= tl.minimum(b_position, end - 1)[:, None], b_s, float("-inf"))
        b_new = tl.maximum(b_max, b_s.max(1))
        # A row that has seen nothing yet has a maximum of -inf, and -inf - -inf is not a number.
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_sum = b_sum * tl.exp2(b_max - b_base) + tl.exp2(b_s - b_base[:, None]).sum(1)
        b_max = b_new
    o_lse = (i_split.to(tl.int64) * heads + b_head) * slots + b_slot
    m_row = (b_head < (i_group + 1) * members) & (b_slot < slots)
    tl.store(p_lse + o_lse, b_max + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum)), m_row)


@triton.jit(do_not_specialize=["rows", "splits"])
def merge_lse_kernel(p_part, p_lse, rows, splits, BLOCK: tl.constexpr, BLOCK_S: tl.constexpr):
    """lse[row] = log2 sum over splits of 2^part[split, row]; a split that saw no key of a row left -inf."""
    b_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_split = tl.arange(0, BLOCK_S)
    m_row = b_row < rows
    # parts [BLOCK_S, BLOCK]
    m_part = (b_split < splits)[:, None] & m_row[None, :]
    b_part = tl.load(p_part + b_split[:, None] * rows + b_row[None, :], m_part, float("-inf"))
    b_max = b_part.max(0)
    # What is there of a row without keys is not read again.
    b_base = tl.where(b_max == float("-inf"), 0.0, b_max)
    b_sum = tl.exp2(b_part - b_base[None, :]).sum(0)
    tl.store(p_lse + b_row, b_base + tl.log2(tl.where(b_sum == 0.0, 1.0, b_sum)), m_row)


@triton.jit(do_not_specialize=LENGTHS, do_not_specialize_on_alignment=["p_position", "p_count", "p_mass"])
def key_mass_kernel(p_query, p_position, p_count, p_key, p_lse, p_mass, slots, keys, members, stride_qh, stride_qr,
                    stride_kg, stride_kn, scale_log2, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr,
                    R: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, COUNTED: tl.constexpr,
                    BLOCK_R: tl.constexpr, MEAN: tl.constexpr):  # fmt: skip
    """mass[g, key] = mean or max over h of (1 / count) sum_i 2^(s - lse[h, i]); one program per (TILE keys, group)."""
    i_group = tl.program_id(1)
    HEADS: tl.constexpr = M // R
    b_key = tl.program_id(0) * TILE + tl.arange(0, TILE)
    b_d = tl.arange(0, BLOCK_D)
    count = slots
    if COUNTED:
        count = tl.load(p_count)
    b_ring = tl.arange(0, BLOCK_R)
    # positions [BLOCK_R]; keys past the newest of them weigh nothing, and are not even read
    newest = tl.load(p_position + b_ring, b_ring < count, -1).to(tl.int32).max(0)
    m_key = b_key < tl.minimum(keys, newest + 1)
    # k [BLOCK_D, TILE]
    p_k = p_key + i_group.to(tl.int64) * stride_kg + b_key.to(tl.int64)[None, :] * stride_kn + b_d[:, None]
    b_k = tl.load(p_k, m_key[None, :] & (b_d < D)[:, None], 0.0)
    b_mass = tl.zeros([TILE], tl.float32)
    seen = tl.where(tl.program_id(0) * TILE <= newest, members, 0)
    for first_head in range(0, seen, HEADS):
        b_by_head = tl.zeros([HEADS, TILE], tl.float32)
        for first_slot in range(0, slots, R):
            b_q, b_head, b_slot, b_position = ring_block(p_query, p_position, first_head, first_slot, i_group, members,
                                                         count, stride_qh, stride_qr, D, BLOCK_D, M, R)  # fmt: skip
            # lse [M]
            o_lse = b_head.to(tl.int64) * slots + b_slot
            b_lse = tl.load(p_lse + o_lse, b_position >= 0, 0.0)
            b_s = tl.dot(b_q, b_k, input_precision=PRECISION) * scale_log2
            b_p = tl.where(b_key[None, :] <= b_position[:, None], tl.exp2(b_s - b_lse[:, None]), 0.0)
            b_by_head += tl.reshape(b_p, [HEADS, R, TILE]).sum(1)
        if MEAN:
            b_mass += b_by_head.sum(0)
        else:
            b_mass = tl.maximum(b_mass, b_by_head.max(0))
    share = tl.maximum(count, 1)
    if MEAN:
        share = share * members
    tl.store(p_mass + i_group.to(tl.int64) * keys + b_key, b_mass / share.to(tl.float32), b_key < keys)


def key_mass_triton(
    query: Tensor,
    positions: Tensor,
    key: Tensor,
    scaling: float,
    pool: str = "mean",
    count: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """As `key_mass`: three launches, and no copy where rows are contiguous."""
    out = torch.empty(key.shape[:2], dtype=torch.float32, device=key.device) if out is None else out
    (heads, slots, _), (groups, keys, _) = query.shape, key.shape
    common = ring_arguments(contiguous_heads(query), positions, contiguous_heads(key), scaling, count)
    splits = max(1, min(MOST_SPLITS, triton.cdiv(keys, LEAST_KEYS)))
    span = triton.cdiv(triton.cdiv(keys, splits), common["TILE"]) * common["TILE"]
    parts = torch.empty(splits, heads, slots, dtype=torch.float32, device=key.device)
    blocks = triton.cdiv(heads // groups, common["M"] // common["R"]) * triton.cdiv(slots, common["R"])
    ring_lse_kernel[(splits, groups, blocks)](p_lse=parts, heads=heads, span=span, num_stages=LSE_STAGES, **common)
    lse = torch.empty(heads, slots, dtype=torch.float32, device=key.device)
    merge_lse_kernel[(triton.cdiv(heads * slots, MERGED_ROWS),)](
        p_part=parts, p_lse=lse, rows=heads * slots, splits=splits, BLOCK=MERGED_ROWS, BLOCK_S=MOST_SPLITS,
        num_warps=MASS_WARPS, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    key_mass_kernel[(triton.cdiv(keys, common["TILE"]), groups)](
        p_lse=lse, p_mass=out, BLOCK_R=triton.next_power_of_2(slots), MEAN=pool == "mean", num_stages=MASS_STAGES,
        **(common | {"num_warps": MASS_WARPS}),
    )  # fmt: skip
    return out


def ring_arguments(
    query: Tensor, positions: Tensor, key: Tensor, scaling: float, count: Tensor | None
) -> dict[str, Any]:
    """What both passes take, by keyword."""
    heads, slots, size = query.shape
    members = heads // key.shape[0]
    assert positions.is_contiguous() and query.stride(-1) == 1 and key.stride(-1) == 1
    block, ring, tile, warps = ring_shape(members, slots, query.dtype)
    return dict(
        p_query=query, p_position=positions, p_count=positions if count is None else count, p_key=key, slots=slots,
        keys=key.shape[1], members=members, stride_qh=query.stride(0), stride_qr=query.stride(1),
        stride_kg=key.stride(0), stride_kn=key.stride(1), scale_log2=scaling * LOG2E, D=size,
        BLOCK_D=max(16, triton.next_power_of_2(size)), M=block, R=ring, TILE=tile,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32", COUNTED=count is not None, num_warps=warps,
        enable_fp_fusion=True,
    )  # fmt: skip


def ring_shape(members: int, slots: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Rows M of a tile, slots R of one head in it, keys, and warps; exact fp32 has no matrix unit and stays small."""
    most, tile, warps = (16, 32, 8) if dtype == torch.float32 else (64, 64, 4)
    ring = min(most, triton.next_power_of_2(slots))
    return max(16, min(most, ring * triton.next_power_of_2(members))), ring, tile, warps
