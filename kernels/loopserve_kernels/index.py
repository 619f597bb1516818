"""The index: chosen lines as tiles and gathered keys, the same for every block of rows.

Work in delta = first position of a row block - key. Slash d needs, in every block of M rows, the keys at delta in
[d - M + 1, d]; these windows do not move from block to block. Their union is cut into runs, the runs into tiles of
at most `tile` deltas that need not be aligned to anything. A byte per delta says which of the verticals a tile
already covers. All of it is O(lines + N) per head; no table per row block exists.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from loopserve_kernels.attention_shape import has_tall_blocks
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.device import on_gpu
from loopserve_kernels.entries import causal_entries, sparse_entries
from loopserve_kernels.tile_index import Index, most_tiles


def make_index(
    lines: Lines,
    new: int,
    keys: int,
    rows_per_block: int,
    tile: int,
    dense_rows: int = 0,
    most_entries: float = float("inf"),
) -> Index:
    """The index of `lines` for n = `new` rows over N = `keys` keys, its cells counted, dear heads made dense.

    A head whose lines would compute more than `most_entries` cells is dense, and so counts all causal ones.
    `dense_rows` as in `vertical_slash`; `rows_per_block` and `tile` from `block_shape`. Nothing waits for the device.
    """
    if on_gpu(lines.slash):
        from loopserve_kernels.index_triton import make_index_triton

        wide = lines.wide if has_tall_blocks(rows_per_block, tile, lines.slash.device) else None
        return make_index_triton(lines, new, keys, rows_per_block, tile, dense_rows, most_entries, wide)
    return make_index_torch(lines, new, keys, rows_per_block, tile, dense_rows, most_entries)


def make_index_torch(
    lines: Lines,
    new: int,
    keys: int,
    rows_per_block: int,
    tile: int,
    dense_rows: int = 0,
    most_entries: float = float("inf"),
    wide: Tensor | None = None,
) -> Index:
    """The twin of `make_index`. Heads of `wide` [P] get windows of twice the rows; with None there are none."""
    index = build_index(lines, keys, rows_per_block, tile, wide)
    entries = count_entries(index, new, keys, dense_rows)
    dense = index.dense | (entries > most_entries)
    # A dense head needs no table, and tall blocks suit it.
    wide = None if wide is None else wide | dense
    return replace(index, dense=dense, wide=wide, entries=entries.masked_fill(dense, causal_entries(new, keys)))


def build_index(lines: Lines, keys: int, rows_per_block: int, tile: int, wide: Tensor | None = None) -> Index:
    """Tiles, byte map and verticals of `lines` over N = `keys` keys. Shapes follow the padded widths: nothing waits."""
    assert tile > 0 and rows_per_block > 0
    tallest = rows_per_block * (1 if wide is None else 2)
    block = torch.full_like(lines.slash[:, :1], rows_per_block)
    if wide is not None:
        block = block * (1 + wide.to(block.dtype)[:, None])
    start, length, runs = _runs(lines.slash, keys, block)
    tile_start, tile_length, tile_count = _tiles(start, length, runs, keys, tallest, tile)
    return Index(
        rows_per_block,
        tile,
        tile_start,
        tile_length,
        tile_count,
        _byte_map(start, length, keys, tallest),
        lines.vertical,
        lines.vertical_count,
        lines.dense,
        wide,
    )


def count_entries(index: Index, new: int, keys: int, dense_rows: int = 0) -> Tensor:
    """Number of executed cells per line head, int64 [P]; over `causal_entries` it is the density. O(N) per head."""
    block, given = index.rows_per_block, (new, keys, dense_rows)
    entries = sparse_entries(index.covered[:, index.reach + 1 - block :], index.vertical, block, *given)
    if index.wide is not None:
        wide = sparse_entries(index.covered, index.vertical, 2 * block, *given)
        entries = torch.where(index.wide, wide, entries)
    return entries.masked_fill(index.dense, causal_entries(new, keys))


def _runs(slash: Tensor, keys: int, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Union of windows [d - M + 1, d], M = block [P, 1]: starts [P, L] padded with N, lengths with 0, counts [P]."""
    valid = slash < keys
    before = torch.cat([-2 * block, slash[:, :-1]], 1)
    opens = valid & (slash - block > before)
    # What slash i adds to its run: at most its whole window, less what the slash before it already covers.
    adds = torch.minimum(slash - before, block).masked_fill(~valid, 0)
    run = (opens.cumsum(1) - 1).clamp_min(0)
    length = torch.zeros_like(slash).scatter_add_(1, run, adds)
    spare = torch.full((slash.shape[0], slash.shape[1] + 1), keys, dtype=slash.dtype, device=slash.device)
    # Slashes that open nothing are written to a last column that is cut off again.
    spare.scatter_(1, run.masked_fill(~opens, slash.shape[1]), slash - block + 1)
    count = opens.sum(1, dtype=torch.int32)
    start = spare[:, :-1]
    inside = torch.arange(slash.shape[1], device=slash.device) < count[:, None]
    return start.masked_fill(~inside, keys), length, count


def _tiles(
    start: Tensor, length: Tensor, runs: Tensor, keys: int, block: int, tile: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut every run into tiles: tile j lies in the run whose share of the running tile count holds j."""
    per_run = (length + tile - 1) // tile
    ends = per_run.cumsum(1)
    total = ends[:, -1:]
    width = start.shape[1]
    most = most_tiles(width, keys, block, tile)
    place = torch.arange(most, device=start.device).expand(start.shape[0], most).contiguous()
    run = torch.searchsorted(ends, place, right=True).clamp_max(width - 1)
    within = (place - (ends - per_run).gather(1, run)) * tile
    real = place < total
    tile_start = (start.gather(1, run) + within).masked_fill(~real, keys).to(torch.int32)
    tile_length = (length.gather(1, run) - within).clamp_max(tile).masked_fill(~real, 0).to(torch.int32)
    return tile_start, tile_length, total.squeeze(1).to(torch.int32)


def _byte_map(start: Tensor, length: Tensor, keys: int, block: int) -> Tensor:
    """1 where delta lies in a run: +1 at each start, -1 past each end, summed along."""
    change = torch.zeros(start.shape[0], keys + block + 1, dtype=torch.int32, device=start.device)
    real = (length > 0).to(torch.int32)
    edge = (start + block - 1).clamp_max(keys + block).long()
    change.scatter_add_(1, edge, real)
    change.scatter_add_(1, (edge + length).clamp_max(keys + block), -real)
    return change.cumsum(1)[:, : keys + block - 1].to(torch.uint8)
