"""Synthetic line sets of a given density, different in every head: of all kinds of lines together, or of one.

The density of a set is that of its *executed* cells (`executed_entries` / `causal_entries`): tiles compute more than
the lines ask for, and that is what costs time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.executed import causal_entries, executed_entries
from loopserve_kernels.index import build_index

STEPS = 18
KINDS = ("band", "slashes", "verticals")


@dataclass(frozen=True, slots=True)
class LineSet:
    """Lines of P heads, and the density each head reaches, float64 [P] on the host."""

    lines: Lines
    density: Tensor


@dataclass(frozen=True, slots=True)
class _Draw:
    """What every head draws from, P heads over N keys."""

    slash: Tensor  # [P, N] offsets in random order
    vertical: Tensor  # [P, N] keys in random order
    shares: Tensor  # [P, 3] of the columns: band, slashes, verticals
    rows_per_block: int
    tile: int

    @property
    def keys(self) -> int:
        return self.slash.shape[1]

    def counts(self, scale: Tensor) -> Tensor:
        """Band, slashes and verticals, int64 [P, 3], of scale [P]: the share of columns to take, roughly."""
        width = torch.tensor([1, self.rows_per_block, 1], device=scale.device)
        counts = (scale[:, None] * self.shares * self.keys / width).long().clamp_max(self.keys)
        counts[:, 0].clamp_min_(1)
        return counts

    def lines(self, counts: Tensor) -> Lines:
        """The first so many of each, not wider than the widest head needs."""
        band, slashes, verticals = counts[:, :, None].unbind(1)
        place = torch.arange(self.keys, device=counts.device)
        most_band, most_slashes, most_verticals = counts.amax(0).tolist()
        near = torch.where(place[:most_band] < band, place[:most_band], self.keys)
        alone = torch.where(place[:most_slashes] < slashes, self.slash[:, :most_slashes], self.keys)
        vertical = torch.where(place[:most_verticals] < verticals, self.vertical[:, :most_verticals], self.keys)
        return fixed_lines(vertical, torch.cat([near, alone], 1), self.keys)

    def entries(self, counts: Tensor, rows: int) -> Tensor:
        """Executed cells of each head, int64 [P]."""
        index = build_index(self.lines(counts), self.keys, self.rows_per_block, self.tile)
        return executed_entries(index, rows, self.keys)


def make_lines(
    heads: int, rows: int, keys: int, density: float, shape: tuple[int, int], seed: int, device: torch.device
) -> LineSet:
    """Of every kind, with an executed density over `rows` new rows as near to `density` as verticals can bring it.

    Heads differ in how much is a local band, slashes that stand alone, and verticals. `shape` is the rows per block
    and the tile that will execute them. Offset 0 is always in, and its tiles alone are about half a block per row: no
    set is sparser than that.
    """
    draw = _draw(heads, keys, shape, seed, device)
    wanted = density * causal_entries(rows, keys)
    low = torch.zeros(heads, dtype=torch.float64, device=device)
    scale = _last_below(low, low + min(4.0, 3 * density), lambda s: draw.entries(draw.counts(s), rows) <= wanted)
    counts = draw.counts(scale)

    def with_verticals(more: Tensor) -> Tensor:
        verticals = (counts[:, 2] + more.long()).clamp_max(keys)
        return torch.stack([counts[:, 0], counts[:, 1], verticals], 1)

    # One slash costs a whole tile's width: what is left is filled up with single columns.
    most = low + min(keys, 2 * density * keys + 1)
    more = _last_below(low, most, lambda m: draw.entries(with_verticals(m), rows) <= wanted)
    best = with_verticals(more)
    return LineSet(draw.lines(best), draw.entries(best, rows).double().cpu() / causal_entries(rows, keys))


def _draw(heads: int, keys: int, shape: tuple[int, int], seed: int, device: torch.device) -> _Draw:
    """Random orders and shares; drawn on the host, so that every device makes the same lines."""
    generator = torch.Generator().manual_seed(seed)
    slash = torch.stack([torch.randperm(keys, generator=generator) for _ in range(heads)])
    vertical = torch.stack([torch.randperm(keys, generator=generator) for _ in range(heads)])
    shares = 0.2 + torch.rand(heads, 3, generator=generator, dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    return _Draw(slash.to(device), vertical.to(device), shares.to(device), *shape)


def _last_below(low: Tensor, high: Tensor, fits: Callable[[Tensor], Tensor]) -> Tensor:
    """By halving, the largest number [P] between low and high that fits; `low` if none does."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        inside = fits(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return low


def widened(lines: Lines, width: int, keys: int) -> Lines:
    """The same lines padded to at least `width`, as `choose_lines` pads its own: building an index costs by width."""

    def pad(part: Tensor) -> Tensor:
        return torch.nn.functional.pad(part, (0, max(0, width - part.shape[1])), value=keys)

    return replace(lines, vertical=pad(lines.vertical), slash=pad(lines.slash))


def lines_of_kind(
    kind: str, heads: int, rows: int, keys: int, density: float, rows_per_block: int, device: torch.device
) -> Lines:
    """About `density` of the cells under one of KINDS; offset 0 is always in."""
    generator = torch.Generator().manual_seed(0)
    columns = max(1, int(density * causal_entries(rows, keys) / rows))
    count = max(1, columns // rows_per_block) if kind == "slashes" else columns
    if kind == "band":
        chosen = torch.arange(columns).expand(heads, -1)
    else:
        # Near offsets meet more rows, as early keys do: the nearer half gives about the density asked for.
        drawn = [torch.randperm(max(1, keys // 2), generator=generator)[:count] for _ in range(heads)]
        chosen = torch.stack(drawn)
    none = torch.full((heads, 1), keys)
    vertical, slash = (chosen, none) if kind == "verticals" else (none, chosen)
    return fixed_lines(vertical.to(device), slash.to(device), keys)
