"""How many cells lines make a kernel compute, in Triton: closed forms over runs of deltas, as in `entries.py`.

A vertical meets row block i at delta f_i - key, so how often a run hides it is a difference of two rounded quotients.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def blocks_below(b_delta, shift, blocks):
    """How many of `blocks` row blocks, the first at 0 and 2^shift rows apart, begin below b_delta."""
    return tl.minimum(tl.maximum((b_delta + (1 << shift) - 1) >> shift, 0), blocks)


@triton.jit
def cells_below(b_delta, history, rows, shift, blocks):
    """Causal cells at deltas from 1 - M to below b_delta (0 or more), int64: `rows` sparse rows, M = 2^shift.

    Up to `history` a delta is seen by all rows; beyond, by those of the blocks that begin at it or later.
    """
    b_delta, rows = b_delta.to(tl.int64), tl.zeros_like(b_delta).to(tl.int64) + rows
    block = 1 << shift
    near = (blocks - 1) * block * (block - 1) // 2
    rest = rows - (blocks - 1) * block
    near = tl.where(blocks > 0, near + rest * (rest - 1) // 2, 0)
    b_beyond = tl.minimum(tl.maximum(b_delta - 1 - history, 0), tl.maximum(blocks - 1, 0) * block)
    b_whole = b_beyond >> shift
    b_cells = block * (b_whole * rows - block * (b_whole * (b_whole + 1) // 2))
    b_cells += (b_beyond - b_whole * block) * (rows - (b_whole + 1) * block)
    return near + tl.minimum(b_delta, history + 1) * rows + b_cells


@triton.jit
def vertical_cells(p_vertical, p_start, p_end, count, runs, history, rows, shift, blocks, CHUNK: tl.constexpr,
                   RUNS: tl.constexpr):  # fmt: skip
    """Cells on the verticals that no run hides: those of the blocks that begin after the key, less the hidden ones."""
    cells = (count * 0).to(tl.int64)
    block = 1 << shift
    short = blocks * block - rows  # rows that the last block lacks
    for first in range(0, count, CHUNK):
        m_key = first + tl.arange(0, CHUNK) < count
        b_key = tl.load(p_vertical + first + tl.arange(0, CHUNK), m_key, 0) - history
        b_ahead = blocks_below(b_key + 1, shift, blocks)
        b_cells = (blocks - b_ahead) * block - tl.where(b_ahead < blocks, short, 0)
        for run in range(0, runs, RUNS):
            b_run = run + tl.arange(0, RUNS)
            b_from = tl.maximum(tl.load(p_start + b_run, b_run < runs, 1), 1)
            b_end = tl.load(p_end + b_run, b_run < runs, 1)
            b_low = blocks_below(b_key[:, None] + b_from[None, :], shift, blocks)
            b_high = blocks_below(b_key[:, None] + b_end[None, :], shift, blocks)
            b_hidden = (b_high - b_low) * block - tl.where((b_high == blocks) & (b_low < blocks), short, 0)
            b_cells -= b_hidden.sum(1)
        cells += tl.where(m_key, b_cells, 0).to(tl.int64).sum(0)
    return cells


@triton.jit
def causal_cells(new, history):
    """Cells of dense causal attention, int64."""
    rows = new.to(tl.int64)
    return rows * history + rows * (rows + 1) // 2
