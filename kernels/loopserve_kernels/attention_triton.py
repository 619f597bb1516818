"""Vertical-slash attention in Triton: one program per (row block, head or two of a group, split).

A program walks the keys that its own rows may not all see (masked causally), then whole tiles without any mask, then
shorter tiles, then its verticals (gathered keys, less those that a tile covers), with the online softmax

    m' = max(m, max_j s_j),  l' = l 2^(m - m') + sum_j 2^(s_j - m'),  acc' = acc 2^(m - m') + sum_j 2^(s_j - m') v_j

where s = scaling * log2(e) * q k. With few row blocks the walk is split, and the parts are merged by 2^(lse).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def count_below(p_sorted, count, bound):
    """How many of the first `count` ascending values at p_sorted lie below `bound`."""
    low = count * 0
    high = count
    while low < high:
        middle = (low + high) // 2
        below = tl.load(p_sorted + middle) < bound
        low = tl.where(below, middle + 1, low)
        high = tl.where(below, high, middle)
    return low


@triton.jit
def key_rows(p_rows, m_d, WHOLE: tl.constexpr):
    """Rows of keys or values; every place is a key, so a mask is needed only where D is less than BLOCK_D."""
    if WHOLE:
        return tl.load(p_rows)
    return tl.load(p_rows, m_d, 0.0)


@triton.jit
def attend(b_q, b_k, b_v, m_seen, b_acc, b_max, b_sum, scale_log2, PRECISION: tl.constexpr, MASKED: tl.constexpr):
    """One online-softmax step of rows q [M, BLOCK_D] over keys k and values v [TILE, BLOCK_D].

    The maximum starts finite, so a row that has seen nothing yet has no -inf - -inf. It stays unscaled until the one
    multiplication and subtraction under the exponent, which is a single instruction.
    """
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
    if MASKED:
        b_s = tl.where(m_seen, b_s, float("-inf"))
    b_new = tl.maximum(b_max, b_s.max(1) * scale_log2)
    b_p = tl.exp2(b_s * scale_log2 - b_new[:, None])
    b_scale = tl.exp2(b_max - b_new)
    b_sum = b_sum * b_scale + b_p.sum(1)
    b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc * b_scale[:, None], input_precision=PRECISION)
    return b_acc, b_new, b_sum


@triton.jit
def row_offsets(b_row, stride_h, stride_n, HEIGHT: tl.constexpr, MEMBERS: tl.constexpr):
    """Where rows b_row [HEIGHT * MEMBERS] of a block lie, from row 0 of its first head."""
    o_row = b_row.to(tl.int64) * stride_n
    if MEMBERS > 1:
        o_row += (tl.arange(0, HEIGHT * MEMBERS) // HEIGHT).to(tl.int64) * stride_h
    return o_row


@triton.jit(
    do_not_specialize=["stride_qh", "stride_qn", "stride_kg", "stride_vg", "stride_os", "stride_oh", "stride_on",
                       "stride_tile", "stride_covered", "stride_vertical", "new", "keys", "heads", "heads_per_key",
                       "heads_per_plan", "first_dense", "reach"],
    do_not_specialize_on_alignment=["p_lse", "p_tile_start", "p_tile_length", "p_full_count", "p_tile_count",
                                    "p_covered", "p_vertical", "p_vertical_count", "p_dense", "p_tall"])  # fmt: skip
def vertical_slash_kernel(
    p_q, p_k, p_v, p_out, p_lse, p_tile_start, p_tile_length, p_full_count, p_tile_count, p_covered, p_vertical,
    p_vertical_count, p_dense, p_tall, stride_qh, stride_qn, stride_kg, stride_vg, stride_os, stride_oh, stride_on,
    stride_tile, stride_covered, stride_vertical, new, keys, heads, heads_per_key, heads_per_plan, first_dense, reach,
    scale_log2, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr, UNIT: tl.constexpr, D: tl.constexpr,
    BLOCK_D: tl.constexpr, HEIGHT: tl.constexpr, MEMBERS: tl.constexpr, TILE: tl.constexpr, TALL: tl.constexpr,
    PRECISION: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Computes out = softmax(scaling q k^T) v over the executed cells; with SPLIT, fp32 parts and their base-2 lse.

    A block is HEIGHT rows of each of MEMBERS heads. With TALL it serves the heads flagged so, with not TALL the
    others; TALL None serves all. Strides of q, k, v and out between rows are in units of UNIT elements, so that
    the compiler knows what they are multiples of although nothing specialises on them.
    """
    M: tl.constexpr = HEIGHT * MEMBERS
    WHOLE: tl.constexpr = D == BLOCK_D
    # The last row blocks have most to do, so they start first.
    i_block = tl.num_programs(0) - 1 - tl.program_id(0)
    i_head = tl.program_id(1) * MEMBERS
    i_split = tl.program_id(2)
    i_plan = (i_head // heads_per_plan).to(tl.int64)
    i_key = (i_head // heads_per_key).to(tl.int64)
    if TALL is not None:
        other = (tl.load(p_tall + i_plan) != 0) != TALL
        if other:
            return
    first = keys - new + i_block * HEIGHT  # position of the block's first row
    b_lane = tl.arange(0, TILE)
    b_d = tl.arange(0, BLOCK_D)
    m_d = (b_d < D)[None, :]
    b_row = i_block * HEIGHT + tl.arange(0, M) % HEIGHT
    b_position = keys - new + b_row
    p_tile_start += i_plan * stride_tile
    p_tile_length += i_plan * stride_tile
    p_vertical += i_plan * stride_vertical
    p_covered += i_plan * stride_covered + reach
    # q [M, BLOCK_D]
    p_q += i_head.to(tl.int64) * (stride_qh * UNIT)
    o_q = row_offsets(b_row, stride_qh * UNIT, stride_qn * UNIT, HEIGHT, MEMBERS)
    b_q = tl.load(p_q + o_q[:, None] + b_d[None, :], (b_row < new)[:, None] & m_d, 0.0)
    b_acc = tl.zeros([M, BLOCK_D], tl.float32)
    b_max = tl.full([M], -1.0e30, tl.float32)
    b_sum = tl.zeros([M], tl.float32)
    # Addresses are a number that moves from tile to tile plus lanes that stay.
    p_k_row = p_k + i_key * (stride_kg * UNIT) + b_d[None, :]
    p_v_row = p_v + i_key * (stride_vg * UNIT) + b_d[None, :]
    p_k_tile = p_k_row + b_lane[:, None] * STRIDE_K
    p_v_tile = p_v_row + b_lane[:, None] * STRIDE_V
    last = tl.maximum(keys - TILE, 0)  # where a tile may begin at the latest

    dense = (tl.load(p_dense + i_plan) != 0) | (i_block * HEIGHT >= first_dense)
    sparse = tl.where(dense, 0, 1)
    full_count = tl.load(p_full_count + i_plan) * sparse
    part_count = tl.load(p_tile_count + i_plan) * sparse - full_count
    # Whole tiles that lie before the block; the next one may reach past the first key, and is cut off there.
    whole = count_below(p_tile_start, full_count, first - TILE + 2)
    cut = count_below(p_tile_start + whole, tl.minimum(full_count - whole, 1), first + 1)
    parts = count_below(p_tile_start + full_count, part_count, first + 1) + cut
    gathered = count_below(p_vertical, tl.load(p_vertical_count + i_plan) * sparse, first)
    # A dense block needs no table: its whole tiles begin at the first key.
    whole = tl.where(dense, first // TILE, whole)
    near_from = tl.where(dense, whole * TILE, first)
    near = (tl.minimum(first + HEIGHT, keys) - near_from + TILE - 1) // TILE
    work = near + whole + parts + (gathered + TILE - 1) // TILE
    share = (work + tl.num_programs(2) - 1) // tl.num_programs(2)
    begin = i_split * share
    end = tl.minimum(begin + share, work)

    for j in range(begin, tl.minimum(end, near)):
        start = near_from + j * TILE
        place = tl.minimum(start, last).to(tl.int64)
        b_k = key_rows(p_k_tile + place * STRIDE_K, m_d, WHOLE)
        b_v = key_rows(p_v_tile + place * STRIDE_V, m_d, WHOLE)
        b_place = place.to(tl.int32) + b_lane
        m_seen = (b_place >= start)[None, :] & (b_place[None, :] <= b_position[:, None])
        b_acc, b_max, b_sum = attend(b_q, b_k, b_v, m_seen, b_acc, b_max, b_sum, scale_log2, PRECISION, True)

    begin, end = tl.maximum(begin - near, 0), end - near
    # Read one tile ahead: a load that an address waits for would halve how far keys are copied ahead of their use.
    start = tl.load(p_tile_start + begin, (sparse != 0) & (begin < whole), 0)
    for j in range(begin, tl.minimum(end, whole)):
        place = tl.where(dense, j * TILE, first - start - (TILE - 1)).to(tl.int64)
        start = tl.load(p_tile_start + j + 1, (sparse != 0) & (j + 1 < whole), 0)
        b_k = key_rows(p_k_tile + place * STRIDE_K, m_d, WHOLE)
        b_v = key_rows(p_v_tile + place * STRIDE_V, m_d, WHOLE)
        b_acc, b_max, b_sum = attend(b_q, b_k, b_v, m_d, b_acc, b_max, b_sum, scale_log2, PRECISION, False)

    begin, end = tl.maximum(begin - whole, 0), end - whole
    for j in range(begin, tl.minimum(end, parts)):
        entry = tl.where(j < cut, whole, full_count + j - cut)
        beyond = first - tl.load(p_tile_start + entry) + 1
        start = beyond - tl.load(p_tile_length + entry)
        place = tl.minimum(tl.maximum(start, 0), last).to(tl.int64)
        b_k = key_rows(p_k_tile + place * STRIDE_K, m_d, WHOLE)
        b_v = key_rows(p_v_tile + place * STRIDE_V, m_d, WHOLE)
        b_place = place.to(tl.int32) + b_lane
        m_seen = ((b_place >= start) & (b_place < beyond))[None, :]
        b_acc, b_max, b_sum = attend(b_q, b_k, b_v, m_seen, b_acc, b_max, b_sum, scale_log2, PRECISION, True)

    begin, end = tl.maximum(begin - parts, 0), end - parts
    # verticals [TILE], read one tile ahead as above
    b_place = tl.load(p_vertical + begin * TILE + b_lane, begin * TILE + b_lane < gathered, 0)
    for j in range(begin, end):
        o_key = b_place.to(tl.int64)[:, None]
        b_k = key_rows(p_k_row + o_key * STRIDE_K, m_d, WHOLE)
        b_v = key_rows(p_v_row + o_key * STRIDE_V, m_d, WHOLE)
        # covered [TILE]; as a column and reduced, because the compiler would load a row of it in every thread
        b_covered = tl.load(p_covered + (first - b_place)[:, None]).max(1)
        b_place = tl.load(p_vertical + tl.minimum((j + 1) * TILE + b_lane, gathered - 1))
        m_seen = ((j * TILE + b_lane < gathered) & (b_covered == 0))[None, :]
        b_acc, b_max, b_sum = attend(b_q, b_k, b_v, m_seen, b_acc, b_max, b_sum, scale_log2, PRECISION, True)

    b_total = tl.where(b_sum == 0.0, 1.0, b_sum)
    # Rows once more, from a zero that the compiler does not know: kept since the beginning they would take registers.
    b_row = i_block * HEIGHT + tl.arange(0, M) % HEIGHT + tl.minimum(work, 0)
    p_out += i_split.to(tl.int64) * (stride_os * UNIT) + i_head.to(tl.int64) * (stride_oh * UNIT)
    o_out = row_offsets(b_row, stride_oh * UNIT, stride_on * UNIT, HEIGHT, MEMBERS)
    b_out = (b_acc / b_total[:, None]).to(p_out.dtype.element_ty)
    tl.store(p_out + o_out[:, None] + b_d[None, :], b_out, (b_row < new)[:, None] & m_d)
    if SPLIT:
        p_lse += (i_split.to(tl.int64) * heads + i_head) * new
        o_lse = row_offsets(b_row, new, 1, HEIGHT, MEMBERS)
        tl.store(p_lse + o_lse, b_max + tl.log2(b_total), b_row < new)
