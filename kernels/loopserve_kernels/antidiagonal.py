"""Antidiagonal scores: what a block of keys gives a block of rows, seen from one antidiagonal per tile of it.

A tile is `stride` rows by `stride` keys. With tile t of the rows and tile u of the keys,

    S[t, u] = scaling / stride * sum_k q[t stride + stride - 1 - k] k[u stride + k],    u no later than t
    score[r, c] = sum of softmax_u(S[t, u]) over the tiles t of row block r and u of key block c

so every row and every key takes part once. The antidiagonal crosses every vertical of a tile and every other slash.

Source: XAttention (arXiv 2503.16428).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.blocks import BlockGrid
from loopserve_kernels.device import on_gpu

# Tile scores held at once, in numbers: what a CPU's caches hold in part, and what a GPU spares.
SCORES_AT_ONCE = {"cpu": 2**18, "gpu": 2**27}


def antidiagonal_scores(query: Tensor, key: Tensor, scaling: float, grid: BlockGrid, stride: int) -> Tensor:
    """Scores of query [H, n, D] over key [G, N, D] by block, fp32 [H, R, C]; blocks that no row sees have 0.

    `stride` divides the grid's size. Rows that are history or beyond the last count as zeros, as do keys beyond the
    last. A row block's scores sum to the number of its tiles that hold a new row.
    """
    assert grid.size % stride == 0, (grid.size, stride)
    groups, per = key.shape[0], grid.size // stride
    if not on_gpu(query):
        query, key = query.float(), key.float()
    rows = _flipped_rows(query, grid, stride).unflatten(0, (groups, -1))
    keys = _tiles(key, grid, stride)
    scores = torch.zeros(*rows.shape[:2], grid.rows, grid.columns, device=query.device)
    of_row_block = rows.shape[1] * per * keys.shape[1]
    most = SCORES_AT_ONCE["gpu" if on_gpu(query) else "cpu"]
    step = min(grid.rows, max(1, most // of_row_block))
    together = max(1, most // (of_row_block * step))
    for group in range(0, groups, together):
        own = slice(group, group + together)
        for low in range(0, grid.rows, step):
            high = min(low + step, grid.rows)
            # No later key than the last row's is seen.
            seen = grid.first + high
            part = rows[own, :, low * per : high * per], keys[own, : seen * per]
            found = _tile_weights(*part, scaling / stride, (grid.first + low) * per)
            if low == 0:
                found[:, :, : grid.before // stride] = 0
            if high == grid.rows:
                # Tiles from the last row's own on hold no row.
                found[:, :, -(-grid.keys // stride) - (grid.first + low) * per :] = 0
            scores[own, :, low:high, :seen] = found.unflatten(3, (-1, per)).unflatten(2, (-1, per)).sum((3, 5))
    return scores.flatten(0, 1)


def _tile_weights(rows: Tensor, keys: Tensor, scaling: float, first: int) -> Tensor:
    """Softmax of tiles [g, h, T, S D] over tiles [g, U, S D], [g, h, T, U] fp32; row tile t is key tile first + t."""
    groups, heads, tiles, _ = rows.shape
    scores = torch.bmm(rows.flatten(1, 2), keys.transpose(1, 2)).float().view(groups, heads, tiles, -1)
    unseen = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu_(first + 1)
    return scores.mul_(scaling).masked_fill_(unseen, float("-inf")).softmax(-1)


def _flipped_rows(query: Tensor, grid: BlockGrid, stride: int) -> Tensor:
    """Query [H, n, D] as tiles [H, T, S D], the rows of each from the last to the first."""
    after = grid.rows * grid.size - grid.before - grid.new
    return F.pad(query, (0, 0, grid.before, after)).unflatten(1, (-1, stride)).flip(2).flatten(2)


def _tiles(key: Tensor, grid: BlockGrid, stride: int) -> Tensor:
    """Key [G, N, D] as tiles [G, U, S D]."""
    return F.pad(key, (0, 0, 0, grid.columns * grid.size - grid.keys)).unflatten(1, (-1, stride)).flatten(2)
