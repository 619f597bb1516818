"""The grid of slash counts in Triton: the masses that end each count, and what the slashes above them cost.

Masses are not negative, so their bits order like the numbers; the largest bits t with at least s masses of t or more
are found three bits at a time, by counting. A program owns one head and one count: no sorting, no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

INFINITE = tl.constexpr(0x7F800000)
# Offsets of a slash that never was: no window reaches from it.
NEVER = tl.constexpr(-(1 << 30))


@triton.jit
def grid_count(i_grid, least, most, step):
    """How many slashes grid point i_grid takes, as `slash_counts`: powers of step / 2^20, held with 16 more bits."""
    count = least.to(tl.int64) << 16
    for _ in range(0, i_grid):
        count = (count * step) >> 20
    return tl.minimum((count + 32768) >> 16, most)


@triton.jit
def bits_of(p_mass, b_place, m_place, forced):
    """Masses as sortable integers, -1 where there is none, and the largest for the first `forced` places."""
    b_bits = tl.load(p_mass + b_place, m_place, 0.0).to(tl.int32, bitcast=True)
    return tl.where(m_place, tl.where(b_place < forced, INFINITE, b_bits), -1)


@triton.jit
def nth_bits(p_mass, keys, forced, count, BLOCK: tl.constexpr, WAYS: tl.constexpr):
    """The largest t so that at least `count` of the masses have bits of t or more; 0 if there are not so many."""
    b_way = tl.arange(0, WAYS)
    found = count.to(tl.int32) * 0
    for i_digit in range(0, 11):
        b_least = found + (b_way << (30 - 3 * i_digit))
        b_count = tl.zeros([WAYS, BLOCK], tl.int32)
        for first in range(0, keys, BLOCK):
            b_place = first + tl.arange(0, BLOCK)
            b_bits = bits_of(p_mass, b_place, b_place < keys, forced)
            # Digits beyond the sign bit wrap below 0 and are no candidates.
            b_count += ((b_bits[None, :] >= b_least[:, None]) & (b_least >= 0)[:, None]).to(tl.int32)
        found = tl.max(tl.where((b_count.sum(1) >= count) & (b_least >= 0), b_least, 0), 0)
    return found


@triton.jit
def larger(a, b):
    """What a scan for the largest so far combines with."""
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["keys", "least", "most", "step", "height"],
            do_not_specialize_on_alignment=["p_bits", "p_count", "p_narrow", "p_wide"])  # fmt: skip
def slash_grid_kernel(p_slash, p_bits, p_count, p_narrow, p_wide, keys, least, most, step, height, GRID: tl.constexpr,
                      BLOCK: tl.constexpr, WAYS: tl.constexpr, LINES: tl.constexpr):  # fmt: skip
    """Per (grid point, line head): the bits that its slashes have at least, their number, and their columns per row.

    The first `least` offsets are always in. Columns are those of the windows [d - M + 1, d], M = `height` and twice it.
    """
    i_grid = tl.program_id(0)
    i_plan = tl.program_id(1)
    p_slash += i_plan.to(tl.int64) * keys
    bits = nth_bits(p_slash, keys, least, grid_count(i_grid, least, most, step), BLOCK, WAYS)
    count = keys * 0
    narrow = keys * 0
    wide = keys * 0
    last = keys * 0 + NEVER
    for first in range(0, keys, BLOCK):
        b_offset = first + tl.arange(0, BLOCK)
        b_in = bits_of(p_slash, b_offset, b_offset < keys, least) >= bits
        # The slash before each: the nearest among those that end one offset earlier.
        b_before = b_offset - 1
        b_earlier = bits_of(p_slash, b_before, (b_before >= first) & (b_before < keys), least) >= bits
        b_nearest = tl.associative_scan(tl.where(b_earlier, b_before, NEVER), 0, larger)
        b_gap = b_offset - tl.maximum(b_nearest, last)
        count += b_in.to(tl.int32).sum(0)
        narrow += tl.where(b_in, tl.minimum(b_gap, height), 0).sum(0)
        wide += tl.where(b_in, tl.minimum(b_gap, 2 * height), 0).sum(0)
        last = tl.maximum(last, tl.max(tl.where(b_in, b_offset, NEVER), 0))
    place = i_plan * GRID + i_grid
    tl.store(p_bits + place, bits)
    tl.store(p_count + place, count)
    tl.store(p_narrow + place, count if LINES else narrow)
    tl.store(p_wide + place, count if LINES else wide)


@triton.jit(do_not_specialize=["rows", "keys", "least"], do_not_specialize_on_alignment=["p_position", "p_bits"])
def residual_kernel(p_weight, p_position, p_slash, p_bits, p_residual, rows, keys, least, heads_per_plan, scale_mean,
                    GRID: tl.constexpr, POINTS: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """residual[j, key] = mean over heads of sum_i P off the slashes of grid point j; TILE keys of a line head each."""
    i_plan = tl.program_id(1)
    b_key = tl.program_id(0) * TILE + tl.arange(0, TILE)
    b_point = tl.arange(0, POINTS)
    p_slash += i_plan.to(tl.int64) * keys
    # bits of the grid's points [POINTS]; those that are not there take in all slashes
    b_least = tl.load(p_bits + i_plan * GRID + b_point, b_point < GRID, 0)
    b_residual = tl.zeros([POINTS, TILE], tl.float32)
    for i_member in range(0, heads_per_plan):
        i_head = i_plan * heads_per_plan + i_member
        for i_row in range(0, rows):
            position = tl.load(p_position + i_row).to(tl.int32)
            b_offset = position - b_key
            m_seen = (b_offset >= 0) & (b_key < keys)
            o_row = (i_head.to(tl.int64) * rows + i_row) * keys
            b_p = tl.load(p_weight + o_row + b_key, m_seen, 0.0)
            b_bits = bits_of(p_slash, b_offset, m_seen, least)
            b_residual += tl.where(b_bits[None, :] < b_least[:, None], b_p[None, :], 0.0)
    o_point = (i_plan.to(tl.int64) * GRID + b_point) * keys
    m_out = (b_point < GRID)[:, None] & (b_key < keys)[None, :]
    tl.store(p_residual + o_point[:, None] + b_key[None, :], b_residual * scale_mean, m_out)
