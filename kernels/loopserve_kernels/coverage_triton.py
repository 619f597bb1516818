"""Coverage in Triton: the weights of the sampled rows added up by rank.

Sums that several programs add to are kept in fixed point, 2^40 to one unit of mass: integer addition has no order, so
repeated runs agree to the bit, and a mass of at most H * m stays far below 2^63. Only the objectives "lines" and
"optimal" ask for it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.lines import LineMass

FIXED_POINT = float(1 << 40)
TILE, ROWS = 64, 16


@triton.jit(
    do_not_specialize=["rows", "keys", "size", "stride_vertical", "stride_slash"],
    do_not_specialize_on_alignment=["p_position", "p_vertical_rank", "p_slash_rank", "p_histogram"],
)
def coverage_histogram_kernel(p_weight, p_position, p_vertical_rank, p_slash_rank, p_histogram, rows, keys,
                              heads_per_plan, size, stride_vertical, stride_slash, unit, TILE: tl.constexpr,
                              ROWS: tl.constexpr):  # fmt: skip
    """histogram[min(rank_v[key], rank_s[p_i - key])] += P (fixed point); one program per (TILE keys, line head)."""
    i_plan = tl.program_id(1)
    b_key = tl.program_id(0) * TILE + tl.arange(0, TILE)
    # ranks of the verticals [TILE]
    b_vertical = tl.load(p_vertical_rank + i_plan.to(tl.int64) * stride_vertical + b_key, b_key < keys, size)
    p_slash_rank += i_plan.to(tl.int64) * stride_slash
    p_histogram += i_plan.to(tl.int64) * size
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for first_row in range(0, rows, ROWS):
            b_row = first_row + tl.arange(0, ROWS)
            b_position = tl.load(p_position + b_row, b_row < rows, -1).to(tl.int32)
            b_offset = b_position[:, None] - b_key[None, :]
            o_row = (i_head.to(tl.int64) * rows + b_row) * keys
            # weights and ranks of the slashes [ROWS, TILE]
            m_seen = (b_offset >= 0) & (b_key < keys)[None, :]
            b_p = tl.load(p_weight + o_row[:, None] + b_key[None, :], m_seen, 0.0)
            b_slash = tl.load(p_slash_rank + b_offset, m_seen, size)
            b_rank = tl.minimum(b_slash, b_vertical[None, :])
            # Most cells are on no line; they would all queue for one address, and nobody reads it.
            tl.atomic_add(p_histogram + b_rank, (b_p * unit).to(tl.int64), m_seen & (b_rank < size), sem="relaxed")


def coverage_histogram_triton(
    mass: LineMass, positions: Tensor, vertical_rank: Tensor, slash_rank: Tensor, size: int
) -> Tensor:
    """As `coverage_histogram`."""
    assert isinstance(mass.weights, Tensor) and vertical_rank.stride(-1) == slash_rank.stride(-1) == 1
    (plans, keys), (heads, rows) = mass.vertical.shape, mass.lse.shape
    histogram = torch.zeros(plans, size, dtype=torch.int64, device=positions.device)
    coverage_histogram_kernel[(triton.cdiv(keys, TILE), plans)](
        p_weight=mass.weights, p_position=positions, p_vertical_rank=vertical_rank, p_slash_rank=slash_rank,
        p_histogram=histogram, rows=rows, keys=keys, heads_per_plan=heads // plans, size=size,
        stride_vertical=vertical_rank.stride(0), stride_slash=slash_rank.stride(0), unit=FIXED_POINT, TILE=TILE,
        ROWS=ROWS, num_warps=4, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return (histogram.double() / (FIXED_POINT * (heads // plans))).float()
