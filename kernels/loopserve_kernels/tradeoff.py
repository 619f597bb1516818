"""Fewer lines for the same coverage: slashes first, then the verticals that the slashes leave worth taking.

Verticals never overlap each other, nor do slashes. So once the s heaviest slashes are fixed, the best verticals are
those with the largest residual mass (what no chosen slash covers), and their coverage simply adds up. A dozen
slash counts on a log grid are tried per head, and the cheapest that reaches alpha is kept.

Cost: "optimal" counts lines. "latency" counts key columns per row as tiles execute them: a slash alone costs a
whole tile of rows_per_block columns, a neighbour of a chosen one costs one, a vertical costs one. Where blocks of
twice the rows are to be had, the price is the lower of both, and `wide` says which.

The residual is what a vertical holds less its cells on chosen slashes, so that a grid point costs the slashes that it
adds, not all cells; and slashes only get dearer along the grid, so that a CPU stops where no head can gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.mass import LineMass
from loopserve_kernels.ranking import forced_mass, pack, ranked
from loopserve_kernels.rules import Rules
from loopserve_kernels.weights import SampledWeights

GRID = 12
# What a key column of a block of twice the rows costs beside two of them, by the instructions of both kernels on sm_90.
WIDE_COLUMN = 0.95


def best_tradeoff(mass: LineMass, rules: Rules) -> Lines:
    """The cheapest of the grid's choices per head, on a CPU; dense where none reaches alpha below dense attention."""
    search = _Search.over(mass, rules)
    before = 0
    for count in slash_counts(*slash_bounds(rules, mass.vertical.shape[1])):
        if not search.add(before, count):
            break
        before = count
    return search.lines()


def slash_bounds(rules: Rules, keys: int) -> tuple[int, int]:
    """The fewest and the most slashes to try: more than an eighth of the keys, alone, would cost all columns."""
    least = min(rules.local, keys)
    return least, max(least, min(rules.candidates, keys // 8))


def slash_counts(least: int, most: int) -> list[int]:
    """About GRID counts from `least` to `most`, evenly spaced in their logarithm; in integers, which devices share."""
    step, count, counts = slash_step(least, most), least << 16, []
    for _ in range(GRID):
        counts.append(min((count + 2**15) >> 16, most))
        count = (count * step) >> 20
    return sorted(set(counts))


def slash_step(least: int, most: int) -> int:
    """What each count is of the one before, in units of 2^-20."""
    return round((most / least) ** (1 / (GRID - 1)) * 2**20)


def slash_columns(slash: Tensor, keys: int, rows: int) -> Tensor:
    """Columns per row of the union of the windows [d - rows + 1, d] of slash [P, s], int64 [P]."""
    plans = slash.shape[0]
    flags = torch.zeros(plans, keys, dtype=torch.bool).scatter_(1, slash, True)
    plan, offset = flags.nonzero(as_tuple=True)
    # Heads lie further apart than a window is wide, so the first slash of each costs a whole one.
    place = offset + plan * (keys + rows)
    columns = place.diff(prepend=place.new_full((1,), -rows)).clamp_max_(rows)
    return torch.zeros(plans, dtype=torch.int64).index_add_(0, plan, columns)


def priced(verticals: Tensor | int, narrow: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
    """Columns per row at the better of both heights, fp32 [P], and whether that is the wide one, bool [P]."""
    low, high = (verticals + narrow).float(), (verticals + wide).float() * WIDE_COLUMN
    return torch.minimum(low, high), high < low


@dataclass(slots=True)
class _Search:
    """The cheapest choice so far of P heads, and what the slashes added so far leave of every vertical."""

    rules: Rules
    weights: SampledWeights
    members: Tensor  # [P, heads of a line head]
    order: Tensor  # [P, L] slashes, the heaviest first
    residual: Tensor  # [P, N]
    covered: Tensor  # [P] float64, share of the attention on the slashes added so far
    price: Tensor  # [P] fp32, what must be beaten
    wide: Tensor  # [P] bool
    slashes: Tensor  # [P] int64 of the best so far; 0 when there is none
    wanted: Tensor  # [P] int64 verticals of the best so far, forced ones included
    left: Tensor  # [P, N] the residual at the best so far
    reached: Tensor  # [P] float64, the coverage of the best so far

    @classmethod
    def over(cls, mass: LineMass, rules: Rules) -> _Search:
        """Nothing added yet."""
        assert isinstance(mass.weights, SampledWeights)
        plans, keys = mass.vertical.shape
        members = torch.arange(mass.lse.shape[0]).view(plans, -1)
        order = ranked(forced_mass(mass, rules)[1], slash_bounds(rules, keys)[1])
        most = rules.most_columns if rules.objective == "latency" else float("inf")
        price = torch.full((plans,), most, dtype=torch.float32)
        none, zero = torch.zeros(2, plans, dtype=torch.int64), torch.zeros(2, plans, dtype=torch.float64)
        return cls(
            rules, mass.weights, members, order, mass.vertical.clone(), zero[0], price, torch.zeros_like(price).bool(),
            none[0], none[1], mass.vertical.clone(), zero[1],
        )  # fmt: skip

    def add(self, before: int, count: int) -> bool:
        """Add slashes `before` .. `count` - 1 of the order and keep what is cheaper; whether any head could gain."""
        rules = self.rules
        narrow, wide = self._columns(count)
        sinks = min(rules.sinks, self.residual.shape[1])
        spare = self.price - priced(sinks, narrow, wide)[0]
        plan = (spare > 0).nonzero().squeeze(1)
        if plan.numel() == 0:
            return False
        self._cover(before, count)
        # More verticals than these cannot be worth it.
        most = min(self.residual.shape[1] - sinks, float(spare.max()) / WIDE_COLUMN)
        wanted, reached = self._verticals(plan, sinks, int(most))
        price, is_wide = priced(wanted, narrow[plan], wide[plan])
        fits = (reached >= rules.alpha) & (wanted + count <= rules.candidates)
        better = fits & (price < self.price[plan])
        plan, wanted = plan[better], wanted[better]
        self.price[plan], self.wide[plan], self.reached[plan] = price[better], is_wide[better], reached[better]
        self.slashes[plan], self.wanted[plan], self.left[plan] = count, wanted, self.residual[plan]
        return True

    def lines(self) -> Lines:
        """The best of every head; dense where there is none."""
        keys, place = self.residual.shape[1], torch.arange(self.residual.shape[1])
        dense = self.slashes == 0
        self.left[:, : self.rules.sinks] = float("inf")
        heaviest = ranked(self.left, max(1, int(self.wanted.max())))
        vertical, vertical_count = pack(heaviest, place[: heaviest.shape[1]] < self.wanted[:, None], keys)
        heaviest = self.order[:, : max(1, int(self.slashes.max()))]
        slash, slash_count = pack(heaviest, place[: heaviest.shape[1]] < self.slashes[:, None], keys)
        coverage = self.reached.masked_fill(dense, 1.0).float()
        return Lines(vertical, vertical_count, slash, slash_count, coverage, dense, self.wide)

    def _columns(self, count: int) -> tuple[Tensor, Tensor]:
        """What the first `count` slashes cost at both heights; "optimal" and a CPU have one height."""
        rules, keys = self.rules, self.residual.shape[1]
        if rules.objective == "optimal":
            narrow = torch.full_like(self.slashes, count)
        else:
            narrow = slash_columns(self.order[:, :count], keys, rules.rows_per_block)
        if not rules.wide or rules.objective == "optimal":
            return narrow, torch.full_like(narrow, 2**30)
        return narrow, slash_columns(self.order[:, :count], keys, 2 * rules.rows_per_block)

    def _cover(self, before: int, count: int) -> None:
        """Move what lies on slashes `before` .. `count` - 1 from the residual to what is covered."""
        weights, key = self.weights.along(self.members, self.order[:, before:count])
        cells = weights.mean(1).flatten(1)
        self.residual.scatter_add_(1, key.flatten(1), -cells).clamp_min_(0)
        self.covered += cells.sum(1, dtype=torch.float64) / self.weights.positions.shape[0]

    def _verticals(self, plan: Tensor, sinks: int, most: int) -> tuple[Tensor, Tensor]:
        """How many verticals heads `plan` need, and their coverage with them: below alpha if `most` do not do."""
        left, count = self.residual[plan], self.weights.positions.shape[0]
        start = self.covered[plan] + left[:, :sinks].sum(1, dtype=torch.float64) / count
        heaviest = left[:, sinks:].topk(most, dim=1).values
        reached = torch.cat([start[:, None], start[:, None] + heaviest.cumsum(1, dtype=torch.float64) / count], 1)
        needed = (reached < self.rules.alpha).sum(1)
        return sinks + needed, reached.gather(1, needed.clamp_max(most)[:, None]).squeeze(1)
