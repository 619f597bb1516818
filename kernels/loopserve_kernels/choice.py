"""The choice: the fewest lines per head that cover a share alpha of the sampled attention.

Objective "lines" ranks every line by its mass and takes the smallest prefix whose exact coverage reaches alpha
(the paper's greedy). "optimal" and "latency" search over slash counts, see `tradeoff.py`. Nothing here waits for
the device: a head that does not reach alpha within its candidates carries a flag, and runs dense.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.coverage import coverage_histogram
from loopserve_kernels.device import on_gpu
from loopserve_kernels.lines import LineMass

OBJECTIVES = ("lines", "optimal", "latency")


@dataclass(frozen=True, slots=True)
class Lines:
    """Chosen lines of P line heads: P is H, G (one choice per key-value head) or 1 (one for all)."""

    vertical: Tensor  # [P, K] int32 keys, ascending, padded with N
    vertical_count: Tensor  # [P] int32
    slash: Tensor  # [P, L] int32 offsets, ascending, padded with N; offset 0 is always in
    slash_count: Tensor  # [P] int32
    coverage: Tensor  # [P] fp32, share of the sampled rows' attention on these lines; NaN when it was not measured
    dense: Tensor  # [P] bool, the head needs every key
    wide: Tensor  # [P] bool, blocks of twice the rows execute the lines more cheaply; False on a CPU


@dataclass(frozen=True, slots=True)
class Rules:
    """What a choice must reach and may not leave out."""

    alpha: float = 0.95  # share of attention mass to cover; 1 is dense
    candidates: int = 4096  # lines ranked per head; a head that needs more is dense
    sinks: int = 4  # first keys, always in
    local: int = 64  # nearest offsets, always in; at least offset 0, without which a row could be empty
    objective: str = "lines"
    rows_per_block: int = 64  # what "latency" takes for the height of a slash tile
    wide: bool = False  # whether blocks of twice the rows are to be had
    most_columns: float = float("inf")  # columns per row of dense attention: "latency" chooses nothing dearer

    def __post_init__(self) -> None:
        """Assert the ranges."""
        assert 0 < self.alpha <= 1 and self.candidates > 0 and self.sinks >= 0 and self.local >= 1
        assert self.objective in OBJECTIVES, self.objective


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


def ranked(mass: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest masses per row, [P, count] int64, ties by index so that runs repeat.

    The bits of a float that is not negative order like the float, so (bits, reversed index) is one sortable integer.
    """
    index = torch.arange(mass.shape[1], device=mass.device)
    order = (mass.float().clamp_min(0).view(torch.int32).long() << 32) + (0xFFFFFFFF - index)
    return order.topk(count, dim=1).indices


def ranks(order: Tensor, size: int) -> Tensor:
    """The rank of each of `size` lines, int32 [P, size], from an order [P, K]; lines not in it rank K."""
    rank = torch.full((order.shape[0], size), order.shape[1], dtype=torch.int32, device=order.device)
    place = torch.arange(order.shape[1], dtype=torch.int32, device=order.device)
    return rank.scatter_(1, order, place.expand_as(order))


def forced_mass(mass: LineMass, rules: Rules) -> tuple[Tensor, Tensor]:
    """Masses with what may not be left out raised to infinity."""
    vertical, slash = mass.vertical.clone(), mass.slash.clone()
    vertical[:, : rules.sinks] = float("inf")
    slash[:, : rules.local] = float("inf")
    return vertical, slash


def pack(index: Tensor, keep: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Kept indices ascending and padded with `keys`, int32, and how many there are."""
    kept = index.masked_fill(~keep, keys).to(torch.int32).sort(1).values
    return kept, keep.sum(1, dtype=torch.int32)


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
