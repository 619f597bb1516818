"""Fewer lines for the same coverage: slashes first, then the verticals that the slashes leave worth taking.

Verticals never overlap each other, nor do slashes. So once the s heaviest slashes are fixed, the best verticals are
those with the largest residual mass (what no chosen slash covers), and their coverage simply adds up. A dozen
slash counts on a log grid are tried per head, and the cheapest that reaches alpha is kept, never dearer than
the greedy choice it competes with.

Cost: "optimal" counts lines. "latency" counts key columns per row as tiles execute them: a slash alone costs a
whole tile of rows_per_block columns, a neighbour of a chosen one costs one, a vertical costs one.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from loopserve_kernels.choice import Lines, Rules, forced_mass, pack, ranked, ranks
from loopserve_kernels.coverage import bucket_mass
from loopserve_kernels.lines import LineMass

GRID = 12


def best_tradeoff(
    greedy: Lines,
    mass: LineMass,
    rows: Tensor,
    positions: Tensor,
    key: Tensor,
    scaling: float,
    rules: Rules,
    candidates: int,
) -> Lines:
    """The cheapest of the grid's choices and `greedy`, per head. Holds masses of [P, GRID + 1, N]."""
    keys, count = key.shape[1], positions.shape[0]
    vertical_mass, slash_mass = forced_mass(mass, rules)
    slash_order = ranked(slash_mass, candidates)
    # More slashes than this, each alone, would cost more columns than there are keys.
    counts = slash_counts(min(rules.local, keys), max(min(rules.local, keys), min(candidates, keys // 8)))
    grid = torch.tensor(counts, dtype=torch.int32, device=key.device)
    bucket = torch.bucketize(ranks(slash_order, keys), grid, right=True, out_int32=True)
    split = bucket_mass(rows, positions, key, scaling, mass.lse, bucket, len(counts) + 1)
    covered = split.double().sum(2).cumsum(1)[:, :-1] / count  # [P, grid], by the slashes alone
    # What each vertical adds once the first j buckets are chosen: all later buckets, [P, grid, N].
    residual = split.flip(1).cumsum(1).flip(1)[:, 1:]
    forced = vertical_mass.isinf()
    wanted = torch.stack(
        [
            _verticals_wanted(residual[:, j], forced, covered[:, j], rules, candidates, count)
            for j in range(len(counts))
        ],
        1,
    )
    cost = wanted + torch.stack([_slash_cost(slash_order[:, :s], rules, keys) for s in counts], 1)
    cost = cost.masked_fill((wanted > candidates) | (wanted + grid > rules.candidates), 2**30)
    price, best = cost.min(1)
    chosen = _lines_at(best, wanted, grid, residual, covered, forced, slash_order, candidates, count, keys)
    dearer = (price >= _greedy_cost(greedy, rules, keys)) & ~greedy.dense
    return _either(dearer | (price >= 2**30), greedy, chosen, keys)


def slash_counts(least: int, most: int) -> list[int]:
    """About GRID counts from `least` to `most`, evenly spaced in their logarithm."""
    least = min(least, most)
    return sorted({round(least * (most / least) ** (j / (GRID - 1))) for j in range(GRID)})


def _residual_order(residual: Tensor, forced: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Verticals by residual mass, forced ones first: their keys and their masses, [P, candidates]."""
    order = ranked(residual.masked_fill(forced, float("inf")), candidates)
    return order, residual.gather(1, order)


def _verticals_wanted(
    residual: Tensor, forced: Tensor, covered: Tensor, rules: Rules, candidates: int, count: int
) -> Tensor:
    """How many verticals reach alpha on top of slashes that cover `covered` [P]; more than `candidates` if none do.

    Only masses are asked for here, which ties do not change, so they are sorted as floats.
    """
    least = min(rules.sinks, forced.shape[1])
    free = residual.masked_fill(forced, 0.0).topk(max(0, candidates - least), dim=1, sorted=True).values
    start = covered + (residual * forced).sum(1, dtype=torch.float64) / count
    reached = start[:, None] + free.double().cumsum(1) / count
    return least + (start < rules.alpha).long() + (reached < rules.alpha).sum(1)


def _slash_cost(slash: Tensor, rules: Rules, keys: int) -> Tensor:
    """Lines, or columns per row of the union of the slashes' windows [d - M + 1, d]; slash [P, s], padded with keys."""
    if rules.objective == "optimal":
        return (slash < keys).sum(1)
    ordered = slash.sort(1).values
    gaps = ordered.diff(dim=1, prepend=ordered.new_full((slash.shape[0], 1), -rules.rows_per_block))
    return gaps.clamp_max(rules.rows_per_block).masked_fill(ordered >= keys, 0).sum(1)


def _greedy_cost(greedy: Lines, rules: Rules, keys: int) -> Tensor:
    return greedy.vertical_count + _slash_cost(greedy.slash, rules, keys)


def _lines_at(
    best: Tensor,
    wanted: Tensor,
    grid: Tensor,
    residual: Tensor,
    covered: Tensor,
    forced: Tensor,
    slash_order: Tensor,
    candidates: int,
    count: int,
    keys: int,
) -> Lines:
    """The lines of grid point `best` [P] of every head."""
    pick = best[:, None]
    chosen = residual.gather(1, pick[:, :, None].expand(-1, 1, keys)).squeeze(1)
    order, masses = _residual_order(chosen, forced, candidates)
    place = torch.arange(candidates, device=best.device)
    keep = place < wanted.gather(1, pick)
    vertical, vertical_count = pack(order, keep, keys)
    slash, slash_count = pack(slash_order, place < grid[best][:, None], keys)
    reached = covered.gather(1, pick).squeeze(1) + (masses.double() * keep).sum(1) / count
    no = torch.zeros_like(best, dtype=torch.bool)
    return Lines(vertical, vertical_count, slash, slash_count, reached.float(), dense=no, wide=no)


def _either(first: Tensor, left: Lines, right: Lines, keys: int) -> Lines:
    """Per head, `left` where `first` [P] says so and `right` elsewhere; the narrower one is padded."""

    def mix(a: Tensor, b: Tensor) -> Tensor:
        if a.ndim == 1:
            return torch.where(first, a, b)
        width = max(a.shape[1], b.shape[1])
        a, b = (torch.nn.functional.pad(part, (0, width - part.shape[1]), value=keys) for part in (a, b))
        return torch.where(first[:, None], a, b)

    return Lines(*(mix(getattr(left, field.name), getattr(right, field.name)) for field in fields(Lines)))
