"""The index in one launch: a program per line head makes its tiles and byte map, and counts its cells."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.entries_triton import causal_cells, vertical_cells
from loopserve_kernels.tile_index import Index, most_tiles
from loopserve_kernels.tiles_triton import cut_tiles, fill_map, find_runs

CHUNK = 128
RUNS = 16
WARPS = 4
LOW_BITS = 31


@triton.jit(
    do_not_specialize=["plans", "stride_slash", "stride_vertical", "stride_tile", "stride_covered", "stride_run", "new",
                       "keys", "dense_rows", "most_high", "most_low"],
    do_not_specialize_on_alignment=["p_slash", "p_slash_count", "p_vertical", "p_vertical_count", "p_dense", "p_wide",
                                    "p_run", "p_tile_start", "p_tile_length", "p_full_count", "p_tile_count",
                                    "p_covered", "p_flags", "p_entries"])  # fmt: skip
def index_kernel(
    p_slash, p_slash_count, p_vertical, p_vertical_count, p_dense, p_wide, p_run, p_tile_start, p_tile_length,
    p_full_count, p_tile_count, p_covered, p_flags, p_entries, plans, stride_slash, stride_vertical, stride_tile,
    stride_covered, stride_run, new, keys, dense_rows, most_high, most_low, LOG_ROWS: tl.constexpr,
    WIDENS: tl.constexpr, TALLEST: tl.constexpr, TILE: tl.constexpr, LOW_BITS: tl.constexpr, CHUNK: tl.constexpr,
    RUNS: tl.constexpr,
):  # fmt: skip
    """Tiles, byte map, flags (dense [P], then wide [P]) and entries of one line head; p_run [3, P, L] is room."""
    i_plan = tl.program_id(0)
    shift = LOG_ROWS
    if WIDENS:
        wide = tl.load(p_wide + i_plan) != 0
        shift = LOG_ROWS + tl.where(wide, 1, 0)
    block = 1 << shift
    o_plan = i_plan.to(tl.int64)
    p_slash += o_plan * stride_slash
    p_start = p_run + o_plan * stride_run
    p_end = p_start + plans.to(tl.int64) * stride_run
    p_whole = p_end + plans.to(tl.int64) * stride_run
    history = keys - new
    rows = tl.where(dense_rows > 0, (tl.maximum(new - dense_rows, 0) >> shift) << shift, new)
    blocks = (rows + block - 1) >> shift
    slashes = tl.load(p_slash_count + i_plan)
    runs, cells = find_runs(p_slash, p_start, p_end, slashes, history, rows, shift, blocks, CHUNK)
    tl.debug_barrier()
    p_tile_start += o_plan * stride_tile
    p_tile_length += o_plan * stride_tile
    whole, tiles = cut_tiles(p_start, p_end, p_whole, p_tile_start, p_tile_length, runs, keys, stride_tile, TILE, CHUNK)
    tl.store(p_full_count + i_plan, whole)
    tl.store(p_tile_count + i_plan, tiles)
    fill_map(p_covered + o_plan * stride_covered, p_slash, slashes, stride_covered, TALLEST - 1, block, TALLEST, CHUNK)
    cells += vertical_cells(p_vertical + o_plan * stride_vertical, p_start, p_end, tl.load(p_vertical_count + i_plan),
                            runs, history, rows, shift, blocks, CHUNK, RUNS)  # fmt: skip
    causal = causal_cells(new, history)
    cells += causal - causal_cells(rows, history)
    most = most_high.to(tl.int64) * (1 << LOW_BITS) + most_low
    dense = (tl.load(p_dense + i_plan) != 0) | (cells > most)
    tl.store(p_flags + i_plan, dense)
    if WIDENS:
        tl.store(p_flags + plans + i_plan, dense | wide)
    tl.store(p_entries + i_plan, tl.where(dense, causal, cells))


def make_index_triton(
    lines: Lines, new: int, keys: int, rows_per_block: int, tile: int, dense_rows: int, most_entries: float,
    wide: Tensor | None,
) -> Index:  # fmt: skip
    """As `make_index_torch`, in the kernel's order of tiles."""
    plans, width = lines.slash.shape
    device = lines.slash.device
    assert tile & (tile - 1) == rows_per_block & (rows_per_block - 1) == 0
    tallest = rows_per_block * (1 if wide is None else 2)
    most = most_tiles(width, keys, tallest, tile)
    tiles = torch.empty(2, plans, most, dtype=torch.int32, device=device)
    counts = torch.empty(2, plans, dtype=torch.int32, device=device)
    covered = torch.empty(plans, tallest - 1 + keys, dtype=torch.int32, device=device)
    flags = torch.empty(2, plans, dtype=torch.bool, device=device)
    entries = torch.empty(plans, dtype=torch.int64, device=device)
    slash, vertical = lines.slash.contiguous(), lines.vertical.contiguous()
    most_int = int(min(most_entries, float(1 << 61)))
    index_kernel[(plans,)](
        p_slash=slash, p_slash_count=lines.slash_count, p_vertical=vertical, p_vertical_count=lines.vertical_count,
        p_dense=lines.dense, p_wide=lines.dense if wide is None else wide,
        p_run=torch.empty(3, plans, width, dtype=torch.int32, device=device), p_tile_start=tiles[0],
        p_tile_length=tiles[1], p_full_count=counts[0], p_tile_count=counts[1], p_covered=covered, p_flags=flags,
        p_entries=entries, plans=plans, stride_slash=width, stride_vertical=vertical.shape[1], stride_tile=most,
        stride_covered=covered.shape[1], stride_run=width, new=new, keys=keys, dense_rows=dense_rows,
        most_high=most_int >> LOW_BITS, most_low=most_int & ((1 << LOW_BITS) - 1),
        LOG_ROWS=rows_per_block.bit_length() - 1, WIDENS=wide is not None, TALLEST=tallest, TILE=tile,
        LOW_BITS=LOW_BITS, CHUNK=CHUNK, RUNS=RUNS, num_warps=WARPS, num_stages=1, enable_fp_fusion=True,
    )  # fmt: skip
    return Index(
        rows_per_block, tile, tiles[0], tiles[1], counts[1], covered, vertical, lines.vertical_count, flags[0],
        None if wide is None else flags[1], entries, counts[0],
    )  # fmt: skip
