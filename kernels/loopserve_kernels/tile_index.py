"""The index that a kernel reads: tiles, and gathered keys; see `index` for how it is made."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Index:
    """What a kernel reads. Tile j covers delta in [tile_start[j], tile_start[j] + tile_length[j]).

    With `full_count` tiles are in the Triton kernel's order: from delta 1 on, ascending, first those of `tile` deltas
    (so many), then the shorter ones; and `covered` is int32.
    """

    rows_per_block: int  # M; heads that are `wide` run in blocks of 2 M rows
    tile: int  # deltas in a tile, at most
    tile_start: Tensor  # [P, T] int32, ascending, padded with N; the first is 1 - M: offset 0 is always in
    tile_length: Tensor  # [P, T] int32, 1 .. tile, padded with 0
    tile_count: Tensor  # [P] int32
    covered: Tensor  # [P, reach + N] uint8, 1 under a tile, at [delta + reach]
    vertical: Tensor  # [P, K] int32 keys, ascending, padded with N
    vertical_count: Tensor  # [P] int32
    dense: Tensor  # [P] bool
    wide: Tensor | None = None  # [P] bool, windows of 2 M; None: no head is
    entries: Tensor | None = None  # [P] int64, cells computed; None: not counted
    full_count: Tensor | None = None  # [P] int32

    @property
    def reach(self) -> int:
        """How far below 0 the byte map goes: the rows of the tallest block, less one."""
        return self.rows_per_block * (1 if self.wide is None else 2) - 1


def most_tiles(slashes: int, keys: int, block: int, tile: int) -> int:
    """No more tiles than this: of runs each alone, or of runs that fill all keys with one short tile each."""
    return min(slashes * -(-block // tile), slashes + (keys + block) // tile)
