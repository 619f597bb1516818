"""Coverage in Triton: what every line covers that no heavier one does.

A cell lies on one vertical and one slash, and is first covered by the heavier of both, the vertical where they weigh
the same. So a program owns the lines that it sums over, and their sum needs no ranks: by rank it is the histogram of
`coverage.py`. No atomics, so repeated runs agree to the bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.grid_triton import bits_of
from loopserve_kernels.mass import LineMass

# Lines per program, and rows that it reads at once.
LINES, ROWS = 256, 8


@triton.jit(do_not_specialize=["rows", "keys", "sinks", "local"], do_not_specialize_on_alignment=["p_position"])
def first_covered_kernel(p_weight, p_position, p_vertical, p_slash, p_first, rows, keys, sinks, local, heads_per_plan,
                         scale_mean, LINES: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """first[side, h, line] = mean over heads of sum_i P on the line's cells where the line that crosses is lighter.

    One program per (LINES lines, line head, side): side 0 is verticals by key, side 1 slashes by offset. The line that
    crosses key k in row i is p_i - k on either side.
    """
    i_plan = tl.program_id(1)
    side = tl.program_id(2)
    b_line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    o_plan = i_plan.to(tl.int64) * keys
    p_own, p_other = p_vertical + o_plan, p_slash + o_plan
    forced_own, forced_other = sinks, local
    if side != 0:
        p_own, p_other = p_slash + o_plan, p_vertical + o_plan
        forced_own, forced_other = local, sinks
    # bits below which a crossing line leaves the cell to this one [LINES]
    b_bound = bits_of(p_own, b_line, b_line < keys, forced_own) + (1 - side)
    b_first = tl.zeros([LINES], tl.float32)
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for first_row in range(0, rows, ROWS):
            b_row = first_row + tl.arange(0, ROWS)
            b_position = tl.load(p_position + b_row, b_row < rows, -1).to(tl.int32)
            o_row = (i_head.to(tl.int64) * rows + b_row) * keys
            # weights and bits of what crosses [ROWS, LINES]
            b_other = b_position[:, None] - b_line[None, :]
            m_seen = (b_other >= 0) & (b_line < keys)[None, :]
            b_key = tl.where(side == 0, b_line[None, :], b_other)
            b_p = tl.load(p_weight + o_row[:, None] + b_key, m_seen, 0.0)
            b_bits = bits_of(p_other, b_other, m_seen, forced_other)
            b_first += tl.where(b_bits < b_bound[None, :], b_p, 0.0).sum(0)
    o_side = side.to(tl.int64) * tl.num_programs(1) * keys + o_plan
    tl.store(p_first + o_side + b_line, b_first * scale_mean, b_line < keys)


def first_covered_triton(mass: LineMass, positions: Tensor, sinks: int, local: int) -> Tensor:
    """What is first covered by each vertical, and by each slash, when lines are taken by falling mass, [2, P, N] fp32.

    The first `sinks` keys and `local` offsets come before all others; positions [m] as they were given to `line_mass`.
    """
    assert isinstance(mass.weights, Tensor)
    (plans, keys), (heads, rows) = mass.vertical.shape, mass.lse.shape
    first = torch.empty(2, plans, keys, dtype=torch.float32, device=positions.device)
    first_covered_kernel[(triton.cdiv(keys, LINES), plans, 2)](
        p_weight=mass.weights, p_position=positions, p_vertical=mass.vertical, p_slash=mass.slash, p_first=first,
        rows=rows, keys=keys, sinks=sinks, local=local, heads_per_plan=heads // plans, scale_mean=plans / heads,
        LINES=LINES, ROWS=ROWS, num_warps=4, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return first
