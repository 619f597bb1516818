"""The choice: the fewest lines per head that cover a share alpha of the sampled attention.

Objective "lines" ranks every line by its mass and takes the smallest prefix whose exact coverage reaches alpha
(the paper's greedy). "optimal" and "latency" search over slash counts, see `tradeoff.py`. Nothing here waits for
the device: a head that does not reach alpha within its candidates carries a flag, and runs dense.
"""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.coverage import coverage_histogram
from loopserve_kernels.device import on_gpu
from loopserve_kernels.mass import LineMass
from loopserve_kernels.ranking import forced_mass, pack, ranked, ranks
from loopserve_kernels.rules import Rules


def choose_lines(mass: LineMass, rows: Tensor, positions: Tensor, key: Tensor, scaling: float, rules: Rules) -> Lines:
    """Choose lines from their masses; rows, positions, key and scaling as given to `line_mass`."""
    if rules.objective == "latency" and rules.alpha < 1:
        return _tradeoff(mass, positions, rules)
    fewest = _tradeoff(mass, positions, rules) if rules.objective == "optimal" and rules.alpha < 1 else None
    if on_gpu(mass.vertical):
        from loopserve_kernels.greedy_triton import greedy_lines_triton

        return greedy_lines_triton(mass, positions, rules, fewest)
    greedy = greedy_lines(mass, rules)
    return greedy if fewest is None else fewer(greedy, fewest, key.shape[1])


def _tradeoff(mass: LineMass, positions: Tensor, rules: Rules) -> Lines:
    if on_gpu(mass.vertical):
        from loopserve_kernels.tradeoff_triton import best_tradeoff_triton

        return best_tradeoff_triton(mass, positions, rules)
    from loopserve_kernels.tradeoff import best_tradeoff

    return best_tradeoff(mass, rules)


def fixed_lines(vertical: Tensor, slash: Tensor, keys: int) -> Lines:
    """Lines that no measurement chose, one row per line head: vertical [P, K] keys, slash [P, L] offsets.

    Repeated and out-of-range entries (below 0, or `keys` and above) are dropped; offset 0 is added.
    """
    device = slash.device
    slash = torch.cat([slash.new_zeros(slash.shape[0], 1), slash], 1)
    sets = [_once(vertical, keys), _once(slash, keys)]
    counts = [(part < keys).sum(1, dtype=torch.int32) for part in sets]
    plans = slash.shape[0]
    coverage = torch.full((plans,), float("nan"), device=device)
    flags = torch.zeros(2, plans, dtype=torch.bool, device=device)
    return Lines(sets[0], counts[0], sets[1], counts[1], coverage, dense=flags[0], wide=flags[1])


def greedy_lines(mass: LineMass, rules: Rules) -> Lines:
    """The smallest prefix of all lines by falling mass that covers alpha, per head, on a CPU."""
    keys, count = mass.vertical.shape[1], mass.lse.shape[1]
    order = ranked(torch.cat(forced_mass(mass, rules), 1), min(rules.candidates, 2 * keys))
    rank = ranks(order, 2 * keys)
    histogram = coverage_histogram(mass, rank[:, :keys], rank[:, keys:], order.shape[1])
    covered = histogram.double().cumsum(1) / count
    forced = min(rules.sinks, keys) + min(rules.local, keys)
    wanted = ((covered < rules.alpha).sum(1) + 1).clamp_min(forced)
    dense = (wanted > order.shape[1]) | (rules.alpha >= 1)
    keep = torch.arange(order.shape[1], device=order.device) < wanted[:, None]
    keep &= ~dense[:, None]
    vertical, vertical_count = pack(order, keep & (order < keys), keys)
    slash, slash_count = pack(order - keys, keep & (order >= keys), keys)
    reached = covered.gather(1, (wanted - 1).clamp_max(order.shape[1] - 1)[:, None]).squeeze(1)
    coverage = reached.masked_fill(dense, 1.0).float()
    return Lines(vertical, vertical_count, slash, slash_count, coverage, dense, torch.zeros_like(dense))


def fewer(greedy: Lines, fewest: Lines, keys: int) -> Lines:
    """Per head, the trade-off's lines if they are no more than the greedy ones; the narrower choice is padded."""
    more = fewest.vertical_count + fewest.slash_count > greedy.vertical_count + greedy.slash_count
    first = fewest.dense | (more & ~greedy.dense)

    def mix(a: Tensor, b: Tensor) -> Tensor:
        if a.ndim == 1:
            return torch.where(first, a, b)
        width = max(a.shape[1], b.shape[1])
        a, b = (F.pad(part, (0, width - part.shape[1]), value=keys) for part in (a, b))
        return torch.where(first[:, None], a, b)

    return Lines(*(mix(getattr(greedy, field.name), getattr(fewest, field.name)) for field in fields(Lines)))


def _once(index: Tensor, keys: int) -> Tensor:
    """Ascending int32 without repeats, padded with `keys`."""
    index = index.masked_fill((index < 0) | (index > keys), keys).to(torch.int32).sort(1).values
    repeated = torch.zeros_like(index, dtype=torch.bool)
    repeated[:, 1:] = index[:, 1:] == index[:, :-1]
    return index.masked_fill(repeated, keys).sort(1).values
