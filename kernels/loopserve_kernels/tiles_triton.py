"""Runs, tiles and the byte map of one line head in Triton, from its slashes, ascending.

They are read in chunks with a carried count, so their number is no constant of a kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from loopserve_kernels.entries_triton import cells_below


@triton.jit
def find_runs(p_slash, p_start, p_end, count, history, rows, shift, blocks, CHUNK: tl.constexpr):
    """Writes where the runs start and end; returns how many there are and their cells."""
    runs = count * 0
    cells = (count * 0).to(tl.int64)
    block = 1 << shift
    for first in range(0, count, CHUNK):
        b_i = first + tl.arange(0, CHUNK)
        m_slash = b_i < count
        b_slash = tl.load(p_slash + b_i, m_slash, 0)
        b_before = tl.load(p_slash + b_i - 1, m_slash & (b_i > 0), 0)
        b_after = tl.load(p_slash + b_i + 1, b_i + 1 < count, 0)
        m_opens = m_slash & ((b_i == 0) | (b_slash - block > b_before))
        m_closes = m_slash & ((b_i + 1 == count) | (b_after - block > b_slash))
        b_run = runs + tl.cumsum(m_opens.to(tl.int32), 0) - 1
        tl.store(p_start + b_run, b_slash - block + 1, m_opens)
        tl.store(p_end + b_run, b_slash + 1, m_closes)
        b_until = cells_below(b_slash + 1, history, rows, shift, blocks)
        # Nothing lies before the first run, which alone begins below delta 0.
        b_from = cells_below(tl.maximum(b_slash - block + 1, 0), history, rows, shift, blocks)
        cells += tl.where(m_closes, b_until, 0).sum(0) - tl.where(m_opens & (b_i > 0), b_from, 0).sum(0)
        runs += m_opens.to(tl.int32).sum(0)
    return runs, cells


@triton.jit
def cut_tiles(p_start, p_end, p_whole, p_tile_start, p_tile_length, runs, keys, width, TILE: tl.constexpr,
              CHUNK: tl.constexpr):  # fmt: skip
    """Writes tiles from delta 1 on, whole ones first; returns how many are whole and how many there are.

    p_whole keeps the running number of whole tiles: whole tile j lies in the first run whose number is above j.
    """
    whole = runs * 0
    for first in range(0, runs, CHUNK):
        b_run = first + tl.arange(0, CHUNK)
        m_run = b_run < runs
        b_from = tl.maximum(tl.load(p_start + b_run, m_run, 1), 1)
        b_whole = (tl.load(p_end + b_run, m_run, 1) - b_from) // TILE
        tl.store(p_whole + b_run, whole + tl.cumsum(b_whole, 0), m_run)
        whole += b_whole.sum(0)
    tiles = whole
    for first in range(0, runs, CHUNK):
        b_run = first + tl.arange(0, CHUNK)
        m_run = b_run < runs
        b_from = tl.maximum(tl.load(p_start + b_run, m_run, 1), 1)
        b_length = tl.load(p_end + b_run, m_run, 1) - b_from
        b_rest = b_length % TILE
        m_rest = b_rest > 0
        b_tile = tiles + tl.cumsum(m_rest.to(tl.int32), 0) - 1
        tl.store(p_tile_start + b_tile, b_from + b_length - b_rest, m_rest)
        tl.store(p_tile_length + b_tile, b_rest, m_rest)
        tiles += m_rest.to(tl.int32).sum(0)
    tl.debug_barrier()
    most = runs * 0 + 1
    while 2 * most <= runs:
        most = 2 * most
    for first in range(0, whole, CHUNK):
        b_tile = first + tl.arange(0, CHUNK)
        m_tile = b_tile < whole
        b_run = tl.zeros([CHUNK], tl.int32)
        step = most
        while step > 0:
            m_below = m_tile & (b_run + step <= runs)
            m_below = m_below & (tl.load(p_whole + b_run + step - 1, m_below, 0) <= b_tile)
            b_run = tl.where(m_below, b_run + step, b_run)
            step = step // 2
        b_before = tl.load(p_whole + b_run - 1, m_tile & (b_run > 0), 0)
        b_from = tl.maximum(tl.load(p_start + b_run, m_tile, 1), 1)
        tl.store(p_tile_start + b_tile, b_from + (b_tile - b_before) * TILE, m_tile)
        tl.store(p_tile_length + b_tile, TILE, m_tile)
    for first in range(tiles, width, CHUNK):
        b_tile = first + tl.arange(0, CHUNK)
        tl.store(p_tile_start + b_tile, keys, b_tile < width)
        tl.store(p_tile_length + b_tile, 0, b_tile < width)
    return whole, tiles


@triton.jit
def fill_map(p_covered, p_slash, count, length, reach, block, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """Writes 1 at delta + reach for every delta in [d - M + 1, d] of a slash d, and 0 elsewhere; M = block <= BLOCK."""
    for first in range(0, length, 4 * CHUNK):
        b_i = first + tl.arange(0, 4 * CHUNK)
        tl.store(p_covered + b_i, 0, b_i < length)
    tl.debug_barrier()
    b_lane = tl.arange(0, BLOCK)
    for first in range(0, count, 32):
        b_i = first + tl.arange(0, 32)
        b_slash = tl.load(p_slash + b_i, b_i < count, 0)
        b_place = (b_slash + reach - block + 1)[:, None] + b_lane[None, :]
        tl.store(p_covered + b_place, 1, (b_i < count)[:, None] & (b_lane < block)[None, :])
