"""The trade-off in Triton: slashes by count, verticals by what is left over, the cheapest of a grid; see `tradeoff.py`.

Four launches, whatever the sizes: the grid's slashes, what each point leaves of every vertical, how many verticals
each point needs, and the lines of the cheapest. Nothing is sorted, nothing waits, and sums have one order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.grid_triton import bits_of, residual_kernel, slash_grid_kernel
from loopserve_kernels.mass import LineMass
from loopserve_kernels.rules import Rules
from loopserve_kernels.tradeoff import GRID, WIDE_COLUMN, slash_bounds, slash_step

BLOCK, WAYS, TILE = 512, 8, 128
NO_PRICE = tl.constexpr(3.0e38)
NUMBERS = ["p_slash_bits", "p_slash_count", "p_narrow", "p_wide", "p_bits", "p_ties", "p_wanted"]


@triton.jit(do_not_specialize=["rows", "keys", "sinks"], do_not_specialize_on_alignment=NUMBERS)
def verticals_kernel(p_residual, p_bits, p_ties, p_wanted, p_reached, rows, keys, sinks, scale_left,
                     BLOCK: tl.constexpr, WAYS: tl.constexpr):  # fmt: skip
    """How many verticals one grid point of one head needs; -1 when all together do not do.

    The largest bits t are found so that verticals of t or more, beside the sinks, leave at most `scale_left` of the
    mass uncovered; of those with bits t exactly, so many as are needed are taken.
    """
    i_point = tl.program_id(0)
    p_residual += i_point.to(tl.int64) * keys
    b_way = tl.arange(0, WAYS)
    b_total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, keys, BLOCK):
        b_key = first + tl.arange(0, BLOCK)
        b_total += tl.load(p_residual + b_key, (b_key < keys) & (b_key >= sinks), 0.0)
    total = b_total.to(tl.float64).sum(0)
    needed = total - scale_left
    found = keys * 0
    for i_digit in range(0, 11):
        b_least = found + (b_way << (30 - 3 * i_digit))
        b_sum = tl.zeros([WAYS, BLOCK], tl.float32)
        for first in range(0, keys, BLOCK):
            b_key = first + tl.arange(0, BLOCK)
            b_mass = tl.load(p_residual + b_key, (b_key < keys) & (b_key >= sinks), 0.0)
            b_bits = b_mass.to(tl.int32, bitcast=True)
            b_sum += tl.where((b_bits[None, :] >= b_least[:, None]) & (b_least >= 0)[:, None], b_mass[None, :], 0.0)
        b_enough = (b_sum.to(tl.float64).sum(1) >= needed) & (b_least >= 0)
        found = tl.max(tl.where(b_enough, b_least, 0), 0)
    b_above = tl.zeros([BLOCK], tl.float32)
    b_count = tl.zeros([BLOCK], tl.int32)
    for first in range(0, keys, BLOCK):
        b_key = first + tl.arange(0, BLOCK)
        b_mass = tl.load(p_residual + b_key, (b_key < keys) & (b_key >= sinks), 0.0)
        b_more = b_mass.to(tl.int32, bitcast=True) > found
        b_above += tl.where(b_more, b_mass, 0.0)
        b_count += b_more.to(tl.int32)
    above = b_above.to(tl.float64).sum(0)
    tie = found.to(tl.float32, bitcast=True)
    more = tl.minimum((needed - above) / tl.maximum(tie, 1e-38), keys.to(tl.float64))
    ties = tl.where(needed > above, tl.ceil(more), 0.0).to(tl.int32)
    # With nothing to add no vertical is taken, not even those of the largest mass.
    found = tl.where(needed > 0.0, found, 0x7FFFFFFF)
    ties = tl.where(needed > 0.0, ties, 0)
    covers = tl.where(needed > 0.0, above + ties.to(tl.float64) * tie, 0.0)
    wanted = sinks + tl.where(needed > 0.0, b_count.sum(0) + ties, 0)
    tl.store(p_bits + i_point, found)
    tl.store(p_ties + i_point, ties)
    tl.store(p_wanted + i_point, tl.where((found == 0) | (needed > total), -1, wanted))
    tl.store(p_reached + i_point, (1.0 - (total - covers) / rows).to(tl.float32))


@triton.jit
def put(p_line, width, b_place, b_in, before):
    """Write the lines that are in after those `before`, and say how many there are now."""
    b_in = b_in.to(tl.int32)
    b_slot = before + tl.cumsum(b_in, 0) - 1
    tl.store(p_line + b_slot, b_place, (b_in != 0) & (b_slot < width))
    return before + b_in.sum(0)


@triton.jit(do_not_specialize=["keys", "sinks", "least", "candidates", "vertical_width", "slash_width"],
            do_not_specialize_on_alignment=[*NUMBERS, "p_vertical", "p_vertical_count", "p_line", "p_line_count",
                                            "p_coverage", "p_dense", "p_tall"])  # fmt: skip
def lines_kernel(p_residual, p_slash, p_slash_bits, p_slash_count, p_narrow, p_wide, p_bits, p_ties, p_wanted,
                 p_reached, p_vertical, p_vertical_count, p_line, p_line_count, p_coverage, p_dense, p_tall, keys,
                 sinks, least, candidates, vertical_width, slash_width, scale_wide, scale_most, GRID: tl.constexpr,
                 POINTS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """The cheapest grid point of a line head; program 0 writes its verticals, program 1 its slashes, ascending."""
    i_plan = tl.program_id(1).to(tl.int64)
    b_point = tl.arange(0, POINTS)
    o_point = i_plan * GRID + b_point
    m_point = b_point < GRID
    # wanted and slash counts [POINTS]
    b_wanted = tl.load(p_wanted + o_point, m_point, -1)
    b_count = tl.load(p_slash_count + o_point, m_point, 0)
    b_low = (b_wanted + tl.load(p_narrow + o_point, m_point, 0)).to(tl.float32)
    b_high = (b_wanted + tl.load(p_wide + o_point, m_point, 0)).to(tl.float32) * scale_wide
    m_fits = m_point & (b_wanted >= 0) & (b_wanted <= vertical_width) & (b_count <= slash_width)
    m_fits = m_fits & (b_wanted + b_count <= candidates)
    b_price = tl.where(m_fits, tl.minimum(b_low, b_high), NO_PRICE)
    price = tl.min(b_price, 0)
    best = tl.min(tl.where(b_price == price, b_point, POINTS - 1), 0)
    dense = price >= scale_most
    m_best = (b_point == best) & (dense == 0)
    wanted = tl.where(m_best, b_wanted, 0).sum(0)
    count = tl.where(m_best, b_count, 0).sum(0)
    place = i_plan * GRID + tl.minimum(best, GRID - 1)
    so_far = keys * 0
    if tl.program_id(0) == 0:
        bits = tl.load(p_bits + place)
        ties = tl.load(p_ties + place)
        ties_so_far = keys * 0
        for first in range(0, tl.where(dense, 0, keys), BLOCK):
            b_key = first + tl.arange(0, BLOCK)
            b_bits = bits_of(p_residual + place * keys, b_key, b_key < keys, 0)
            b_tie = ((b_bits == bits) & (b_key >= sinks)).to(tl.int32)
            b_in = (b_bits > bits) | (b_key < sinks) | ((b_tie != 0) & (ties_so_far + tl.cumsum(b_tie, 0) <= ties))
            m_key = b_in & (b_key < keys)
            so_far = put(p_vertical + i_plan * vertical_width, vertical_width, b_key, m_key, so_far)
            ties_so_far += b_tie.sum(0)
        for first in range(0, vertical_width, BLOCK):
            b_slot = first + tl.arange(0, BLOCK)
            m_spare = (b_slot >= wanted) & (b_slot < vertical_width)
            tl.store(p_vertical + i_plan * vertical_width + b_slot, keys, m_spare)
        tl.store(p_vertical_count + i_plan, wanted)
        tl.store(p_coverage + i_plan, tl.where(dense, 1.0, tl.load(p_reached + place)))
        tl.store(p_dense + i_plan, dense)
        tl.store(p_tall + i_plan, tl.where(m_best & (b_high < b_low), 1, 0).sum(0) > 0)
    else:
        bits = tl.load(p_slash_bits + place)
        for first in range(0, tl.where(dense, 0, keys), BLOCK):
            b_offset = first + tl.arange(0, BLOCK)
            b_in = bits_of(p_slash + i_plan * keys, b_offset, b_offset < keys, least) >= bits
            so_far = put(p_line + i_plan * slash_width, slash_width, b_offset, b_in, so_far)
        for first in range(0, slash_width, BLOCK):
            b_slot = first + tl.arange(0, BLOCK)
            tl.store(p_line + i_plan * slash_width + b_slot, keys, (b_slot >= count) & (b_slot < slash_width))
        tl.store(p_line_count + i_plan, count)


def best_tradeoff_triton(mass: LineMass, positions: Tensor, rules: Rules) -> Lines:
    """As `best_tradeoff`; widths are what the rules allow, so that nothing depends on what was found."""
    assert isinstance(mass.weights, Tensor)
    (plans, keys), (heads, rows), device = mass.vertical.shape, mass.lse.shape, mass.vertical.device
    least, most = slash_bounds(rules, keys)
    sinks, candidates = min(rules.sinks, keys), min(rules.candidates, keys)
    lines = rules.objective == "optimal"
    grid = torch.empty(7, plans, GRID, dtype=torch.int32, device=device)
    residual = torch.empty(plans, GRID, keys, dtype=torch.float32, device=device)
    reached = torch.empty(plans, GRID, dtype=torch.float32, device=device)
    slash_bits, slash_count, narrow, wide, bits, ties, wanted = grid
    how = dict(num_warps=4, num_stages=1, enable_fp_fusion=True)
    slash_grid_kernel[(GRID, plans)](
        p_slash=mass.slash, p_bits=slash_bits, p_count=slash_count, p_narrow=narrow, p_wide=wide, keys=keys,
        least=least, most=most, step=slash_step(least, most), height=rules.rows_per_block, GRID=GRID, BLOCK=BLOCK,
        WAYS=WAYS, LINES=lines, **how,
    )  # fmt: skip
    residual_kernel[(triton.cdiv(keys, TILE), plans)](
        p_weight=mass.weights, p_position=positions, p_slash=mass.slash, p_bits=slash_bits, p_residual=residual,
        rows=rows, keys=keys, least=least, heads_per_plan=heads // plans, scale_mean=plans / heads, GRID=GRID,
        POINTS=triton.next_power_of_2(GRID), TILE=TILE, **how,
    )  # fmt: skip
    verticals_kernel[(plans * GRID,)](
        p_residual=residual, p_bits=bits, p_ties=ties, p_wanted=wanted, p_reached=reached, rows=rows, keys=keys,
        sinks=sinks, scale_left=(1 - rules.alpha) * rows, BLOCK=BLOCK, WAYS=WAYS, **how,
    )  # fmt: skip
    vertical = torch.empty(plans, max(1, candidates), dtype=torch.int32, device=device)
    slash = torch.empty(plans, most, dtype=torch.int32, device=device)
    counts = torch.empty(2, plans, dtype=torch.int32, device=device)
    flags = torch.empty(2, plans, dtype=torch.bool, device=device)
    coverage = torch.empty(plans, dtype=torch.float32, device=device)
    lines_kernel[(2, plans)](
        p_residual=residual, p_slash=mass.slash, p_slash_bits=slash_bits, p_slash_count=slash_count, p_narrow=narrow,
        p_wide=wide, p_bits=bits, p_ties=ties, p_wanted=wanted, p_reached=reached, p_vertical=vertical,
        p_vertical_count=counts[0], p_line=slash, p_line_count=counts[1], p_coverage=coverage, p_dense=flags[0],
        p_tall=flags[1], keys=keys, sinks=sinks, least=least, candidates=rules.candidates,
        vertical_width=vertical.shape[1], slash_width=most, scale_wide=WIDE_COLUMN if rules.wide and not lines else 2.0,
        scale_most=min(rules.most_columns, NO_PRICE.value), GRID=GRID, POINTS=triton.next_power_of_2(GRID), BLOCK=BLOCK,
        **how,
    )  # fmt: skip
    return Lines(vertical, counts[0], slash, counts[1], coverage, flags[0], flags[1])
