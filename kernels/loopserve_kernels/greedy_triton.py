"""The greedy choice in Triton: lines by falling mass until they cover alpha; see `greedy_lines` in `choice.py`.

Three launches, whatever the sizes: what each line is the first to cover, where the prefix ends, and its lines packed
in order. "optimal" gives the trade-off's lines along, and the last launch takes those where they are fewer. Nothing is
sorted, nothing waits, and sums have one order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.coverage_triton import first_covered_triton
from loopserve_kernels.grid_triton import INFINITE, bits_of
from loopserve_kernels.mass import LineMass
from loopserve_kernels.rules import Rules
from loopserve_kernels.tradeoff_triton import put

BLOCK, WAYS, CHUNK = 2048, 8, 512


@triton.jit
def weighed(p_mass, p_first, b_line, keys, forced):
    """Masses of lines as sortable integers, and what each is the first to cover."""
    b_bits = bits_of(p_mass, b_line, b_line < keys, forced)
    return b_bits, tl.load(p_first + b_line, b_line < keys, 0.0)


@triton.jit
def last_ties(p_mass, p_first, keys, forced, bits, left, before, BLOCK: tl.constexpr):
    """How many lines of exactly these bits are taken, by index, while less than `left` is covered; and by them."""
    count = keys * 0
    taken = before
    for first in range(0, keys, BLOCK):
        b_bits, b_first = weighed(p_mass, p_first, first + tl.arange(0, BLOCK), keys, forced)
        b_tie = b_bits == bits
        b_cover = tl.where(b_tie, b_first, 0.0).to(tl.float64)
        # What may not be left out is taken, covered or not.
        b_in = b_tie & ((bits == INFINITE) | (before + tl.cumsum(b_cover, 0) - b_cover < left))
        count += b_in.to(tl.int32).sum(0)
        taken += tl.where(b_in, b_cover, 0.0).sum(0)
        before += b_cover.sum(0)
    return count, taken, before


@triton.jit(do_not_specialize=["keys", "sinks", "local", "most"], do_not_specialize_on_alignment=["p_end"])
def prefix_kernel(p_vertical, p_slash, p_first, p_end, p_reached, keys, sinks, local, most, scale_wanted, scale_row,
                  BLOCK: tl.constexpr, WAYS: tl.constexpr):  # fmt: skip
    """Where the smallest prefix of one head ends that covers `scale_wanted` of mass: its last bits, and its counts.

    end [5, P]: the bits t of its last line, how many verticals and slashes of bits t exactly are in it, and how many
    verticals and slashes in all. No lines in all means that more than `most` would be needed. reached [P] is the share.
    """
    i_plan = tl.program_id(0)
    plans = tl.num_programs(0)
    o_plan = i_plan.to(tl.int64) * keys
    p_vertical += o_plan
    p_slash += o_plan
    p_own = p_first + o_plan
    p_other = p_own + plans.to(tl.int64) * keys
    b_way = tl.arange(0, WAYS)
    found = keys * 0
    for i_digit in range(0, 11):
        b_least = found + (b_way << (30 - 3 * i_digit))
        b_sum = tl.zeros([WAYS, BLOCK], tl.float32)
        for first in range(0, keys, BLOCK):
            b_line = first + tl.arange(0, BLOCK)
            b_bits, b_first = weighed(p_vertical, p_own, b_line, keys, sinks)
            b_sum += tl.where(b_bits[None, :] >= b_least[:, None], b_first[None, :], 0.0)
            b_bits, b_first = weighed(p_slash, p_other, b_line, keys, local)
            b_sum += tl.where(b_bits[None, :] >= b_least[:, None], b_first[None, :], 0.0)
        # Digits beyond the sign bit wrap below 0 and are no candidates.
        b_enough = (b_sum.to(tl.float64).sum(1) >= scale_wanted) & (b_least >= 0)
        found = tl.max(tl.where(b_enough, b_least, 0), 0)
    b_all = tl.zeros([BLOCK], tl.float32)
    b_above = tl.zeros([BLOCK], tl.float32)
    b_verticals = tl.zeros([BLOCK], tl.int32)
    b_slashes = tl.zeros([BLOCK], tl.int32)
    for first in range(0, keys, BLOCK):
        b_line = first + tl.arange(0, BLOCK)
        b_bits, b_first = weighed(p_vertical, p_own, b_line, keys, sinks)
        b_all += b_first
        b_above += tl.where(b_bits > found, b_first, 0.0)
        b_verticals += (b_bits > found).to(tl.int32)
        b_bits, b_first = weighed(p_slash, p_other, b_line, keys, local)
        b_all += b_first
        b_above += tl.where(b_bits > found, b_first, 0.0)
        b_slashes += (b_bits > found).to(tl.int32)
    above = b_above.to(tl.float64).sum(0)
    left = scale_wanted - above
    zero = above * 0.0
    ties, taken, before = last_ties(p_vertical, p_own, keys, sinks, found, left, zero, BLOCK)
    more_ties, more_taken, _ = last_ties(p_slash, p_other, keys, local, found, left, before, BLOCK)
    verticals = b_verticals.sum(0) + ties
    slashes = b_slashes.sum(0) + more_ties
    dense = (b_all.to(tl.float64).sum(0) < scale_wanted) | (verticals + slashes > most)
    tl.store(p_end + i_plan, found)
    tl.store(p_end + plans + i_plan, ties)
    tl.store(p_end + 2 * plans + i_plan, more_ties)
    tl.store(p_end + 3 * plans + i_plan, tl.where(dense, 0, verticals))
    tl.store(p_end + 4 * plans + i_plan, tl.where(dense, 0, slashes))
    reached = (above + taken + (more_taken - before)) * scale_row
    tl.store(p_reached + i_plan, tl.where(dense, 1.0, reached).to(tl.float32))


@triton.jit
def write_prefix(p_lines, p_mass, keys, forced, bits, ties, width, CHUNK: tl.constexpr):
    """Lines of more than these bits, and the first `ties` of exactly these, ascending."""
    so_far = keys * 0
    ties_so_far = keys * 0
    for first in range(0, keys, CHUNK):
        b_line = first + tl.arange(0, CHUNK)
        b_bits = bits_of(p_mass, b_line, b_line < keys, forced)
        b_tie = (b_bits == bits).to(tl.int32)
        b_in = (b_bits > bits) | ((b_tie != 0) & (ties_so_far + tl.cumsum(b_tie, 0) <= ties))
        so_far = put(p_lines, width, b_line, b_in, so_far)
        ties_so_far += b_tie.sum(0)


@triton.jit(do_not_specialize=["keys", "sinks", "local", "width", "vertical_width", "slash_width"],
            do_not_specialize_on_alignment=["p_end", "p_other_vertical", "p_other_slash", "p_other_vertical_count",
                                            "p_other_slash_count", "p_other_dense", "p_line", "p_count",
                                            "p_flags"])  # fmt: skip
def greedy_lines_kernel(p_vertical, p_slash, p_end, p_reached, p_other_vertical, p_other_slash, p_other_vertical_count,
                        p_other_slash_count, p_other_dense, p_other_reached, p_line, p_count, p_coverage, p_flags,
                        keys, sinks, local, width, vertical_width, slash_width, OTHER: tl.constexpr,
                        CHUNK: tl.constexpr):  # fmt: skip
    """The prefix of a line head, or the other lines where these are no more; ascending, padded with `keys`.

    line [2, P, width], count [2, P] and flags [2, P]: dense, wide. Program 0 of a head writes verticals, 1 slashes.
    """
    side = tl.program_id(0)
    i_plan = tl.program_id(1)
    plans = tl.num_programs(1)
    o_plan = i_plan.to(tl.int64)
    p_mass, forced = p_vertical + o_plan * keys, sinks
    p_other, p_other_count = p_other_vertical + o_plan * vertical_width, p_other_vertical_count
    if side != 0:
        p_mass, forced = p_slash + o_plan * keys, local
        p_other, p_other_count = p_other_slash + o_plan * slash_width, p_other_slash_count
    p_line += (side * plans + i_plan).to(tl.int64) * width
    count = tl.load(p_end + (3 + side) * plans + i_plan)
    total = tl.load(p_end + 3 * plans + i_plan) + tl.load(p_end + 4 * plans + i_plan)
    coverage = tl.load(p_reached + i_plan)
    dense = total == 0
    theirs = False
    if OTHER:
        total_other = tl.load(p_other_vertical_count + i_plan) + tl.load(p_other_slash_count + i_plan)
        theirs = (tl.load(p_other_dense + i_plan) == 0) & (dense | (total_other <= total))
        if theirs:
            count = tl.load(p_other_count + i_plan)
            coverage = tl.load(p_other_reached + i_plan)
            for first in range(0, count, CHUNK):
                b_slot = first + tl.arange(0, CHUNK)
                tl.store(p_line + b_slot, tl.load(p_other + b_slot, b_slot < count, 0), b_slot < count)
    if (count > 0) & (not theirs):
        bits = tl.load(p_end + i_plan)
        ties = tl.load(p_end + (1 + side) * plans + i_plan)
        write_prefix(p_line, p_mass, keys, forced, bits, ties, width, CHUNK)
    for first in range(0, width, CHUNK):
        b_slot = first + tl.arange(0, CHUNK)
        tl.store(p_line + b_slot, keys, (b_slot >= count) & (b_slot < width))
    tl.store(p_count + side * plans + i_plan, count)
    if side == 0:
        tl.store(p_coverage + i_plan, coverage)
        tl.store(p_flags + i_plan, dense & (not theirs))
        tl.store(p_flags + plans + i_plan, False)


def greedy_lines_triton(mass: LineMass, positions: Tensor, rules: Rules, other: Lines | None = None) -> Lines:
    """As `greedy_lines`, but the `other` lines of heads where they are no more, as `fewer` says.

    Widths are what the rules allow, so that nothing depends on what was found.
    """
    (plans, keys), rows, device = mass.vertical.shape, mass.lse.shape[1], mass.vertical.device
    sinks, local = min(rules.sinks, keys), min(rules.local, keys)
    most, width = (0 if rules.alpha >= 1 else min(rules.candidates, 2 * keys)), min(rules.candidates, keys)
    first = first_covered_triton(mass, positions, sinks, local)
    end = torch.empty(5, plans, dtype=torch.int32, device=device)
    reached = torch.empty(2, plans, dtype=torch.float32, device=device)
    prefix_kernel[(plans,)](
        p_vertical=mass.vertical, p_slash=mass.slash, p_first=first, p_end=end, p_reached=reached, keys=keys,
        sinks=sinks, local=local, most=most, scale_wanted=rules.alpha * rows, scale_row=1 / rows, BLOCK=BLOCK,
        WAYS=WAYS, num_warps=8, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    line = torch.empty(2, plans, width, dtype=torch.int32, device=device)
    counts = torch.empty(2, plans, dtype=torch.int32, device=device)
    flags = torch.empty(2, plans, dtype=torch.bool, device=device)
    given = other or Lines(line[0], end[3], line[1], end[4], reached[0], flags[0], flags[1])
    greedy_lines_kernel[(2, plans)](
        p_vertical=mass.vertical, p_slash=mass.slash, p_end=end, p_reached=reached, p_other_vertical=given.vertical,
        p_other_slash=given.slash, p_other_vertical_count=given.vertical_count, p_other_slash_count=given.slash_count,
        p_other_dense=given.dense, p_other_reached=given.coverage, p_line=line, p_count=counts, p_coverage=reached[1],
        p_flags=flags, keys=keys, sinks=sinks, local=local, width=width, vertical_width=given.vertical.shape[1],
        slash_width=given.slash.shape[1], OTHER=other is not None, CHUNK=CHUNK, num_warps=4, num_stages=1,
        enable_fp_fusion=True,
    )  # fmt: skip
    return Lines(line[0], counts[0], line[1], counts[1], reached[1], flags[0], flags[1])
