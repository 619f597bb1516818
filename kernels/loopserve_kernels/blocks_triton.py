"""Block-sparse attention in Triton: one program per (rows of a row block, head, split).

A program walks the keys of its own block (masked causally), then the tiles of the listed blocks without any mask, with
the online softmax of `attention_triton`. With few rows the walk is split, and the parts are merged by 2^(lse).
"""

from __future__ import annotations

import triton
import triton.language as tl

from loopserve_kernels.attention_triton import attend, key_rows


@triton.jit(
    do_not_specialize=["stride_qh", "stride_qn", "stride_kg", "stride_vg", "stride_os", "stride_oh", "stride_on",
                       "row_blocks", "key_blocks", "first_block", "new", "keys", "heads", "heads_per_key",
                       "heads_per_plan"],
    do_not_specialize_on_alignment=["p_lse", "p_block", "p_count"])  # fmt: skip
def block_sparse_kernel(
    p_q, p_k, p_v, p_out, p_lse, p_block, p_count, stride_qh, stride_qn, stride_kg, stride_vg, stride_os,
    stride_oh, stride_on, row_blocks, key_blocks, first_block, new, keys, heads, heads_per_key, heads_per_plan,
    scale_log2, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr, UNIT: tl.constexpr, D: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, HEIGHT: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """Computes out = softmax(scaling q k^T) v over the executed blocks; with SPLIT, fp32 parts and their base-2 lse.

    BLOCK is a multiple of HEIGHT and of TILE. Strides are in units of UNIT elements, as in `vertical_slash_kernel`.
    """
    WHOLE: tl.constexpr = D == BLOCK_D
    PER: tl.constexpr = BLOCK // TILE
    # The last rows have most to do, so they start first.
    i_rows = tl.num_programs(0) - 1 - tl.program_id(0)
    i_head = tl.program_id(1)
    i_split = tl.program_id(2)
    i_row = i_rows * HEIGHT // BLOCK
    i_plan = (i_head // heads_per_plan).to(tl.int64)
    i_key = (i_head // heads_per_key).to(tl.int64)
    base = (first_block + i_row) * BLOCK  # the first key of the block on the diagonal
    first = first_block * BLOCK + i_rows * HEIGHT  # position of the program's first row
    if first + HEIGHT <= keys - new:
        return  # all of it is history
    b_lane = tl.arange(0, TILE)
    b_d = tl.arange(0, BLOCK_D)
    m_d = (b_d < D)[None, :]
    b_row = first - (keys - new) + tl.arange(0, HEIGHT)
    m_row = (b_row >= 0) & (b_row < new)
    # q [HEIGHT, BLOCK_D]
    p_q += i_head.to(tl.int64) * (stride_qh * UNIT)
    o_q = b_row.to(tl.int64) * (stride_qn * UNIT)
    b_q = tl.load(p_q + o_q[:, None] + b_d[None, :], m_row[:, None] & m_d, 0.0)
    b_acc = tl.zeros([HEIGHT, BLOCK_D], tl.float32)
    b_max = tl.full([HEIGHT], -1.0e30, tl.float32)
    b_sum = tl.zeros([HEIGHT], tl.float32)
    # Addresses are a number that moves from tile to tile plus lanes that stay.
    p_k += i_key * (stride_kg * UNIT) + b_lane[:, None] * STRIDE_K + b_d[None, :]
    p_v += i_key * (stride_vg * UNIT) + b_lane[:, None] * STRIDE_V + b_d[None, :]
    last = tl.maximum(keys - TILE, 0)  # where a tile may begin at the latest

    i_list = i_plan * row_blocks + i_row
    p_block += i_list * key_blocks
    near = (tl.minimum(first + HEIGHT, keys) - base + TILE - 1) // TILE
    tiles = tl.load(p_count + i_list) * PER
    share = (near + tiles + tl.num_programs(2) - 1) // tl.num_programs(2)
    begin = i_split * share
    end = tl.minimum(begin + share, near + tiles)

    for j in range(begin, tl.minimum(end, near)):
        start = base + j * TILE
        place = tl.minimum(start, last).to(tl.int64)
        b_k = key_rows(p_k + place * STRIDE_K, m_d, WHOLE)
        b_v = key_rows(p_v + place * STRIDE_V, m_d, WHOLE)
        b_place = place.to(tl.int32) + b_lane
        # From a zero that the compiler does not know, like the rows at the end: kept, positions would take registers.
        b_position = first + tl.arange(0, HEIGHT) + tl.minimum(j, 0)
        m_seen = (b_place >= start)[None, :] & (b_place[None, :] <= b_position[:, None])
        b_acc, b_max, b_sum = attend(b_q, b_k, b_v, m_seen, b_acc, b_max, b_sum, scale_log2, PRECISION, True)

    begin, end = tl.maximum(begin - near, 0), end - near
    # Read one tile ahead: a load that an address waits for would halve how far keys are copied ahead of their use.
    block = tl.load(p_block + begin // PER, begin < end, 0)
    for j in range(begin, end):
        place = block.to(tl.int64) * BLOCK + (j % PER) * TILE
        block = tl.load(p_block + (j + 1) // PER, j + 1 < end, 0)
        b_k = key_rows(p_k + place * STRIDE_K, m_d, WHOLE)
        b_v = key_rows(p_v + place * STRIDE_V, m_d, WHOLE)
        b_acc, b_max, b_sum = attend(b_q, b_k, b_v, m_d, b_acc, b_max, b_sum, scale_log2, PRECISION, False)

    b_total = tl.where(b_sum == 0.0, 1.0, b_sum)
    # Rows once more, from a zero that the compiler does not know: kept since the beginning they would take registers.
    b_row = first - (keys - new) + tl.arange(0, HEIGHT) + tl.minimum(tiles, 0)
    m_row = (b_row >= 0) & (b_row < new)
    p_out += i_split.to(tl.int64) * (stride_os * UNIT) + i_head.to(tl.int64) * (stride_oh * UNIT)
    o_out = b_row.to(tl.int64) * (stride_on * UNIT)
    b_out = (b_acc / b_total[:, None]).to(p_out.dtype.element_ty)
    tl.store(p_out + o_out[:, None] + b_d[None, :], b_out, m_row[:, None] & m_d)
    if SPLIT:
        p_lse += (i_split.to(tl.int64) * heads + i_head) * new
        tl.store(p_lse + b_row, b_max + tl.log2(b_total), m_row)
