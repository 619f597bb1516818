"""How concentrated attention is: the entries that a share alpha of its mass costs.

Two answers, both from a few sampled rows, so that no [N, N] matrix is ever made:

* entries: the fewest keys of each row that hold alpha of its mass, as a share of the keys it sees;
* lines: the verticals and slashes that a greedy choice by mass takes until they cover alpha of the rows'
  mass, overlaps counted once, as a share of all causal entries. This is what sparse prefill pays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

CANDIDATES = 8192
SLASH_COUNTS = 24
SINKS = 4
LOCAL = 8
BLOCKS = 8
BLOCK_ROWS = 8


@dataclass(frozen=True, slots=True)
class Lines:
    """Selected lines of one head: keys of verticals and offsets of slashes, ascending.

    `coverage` is the share of the choosing rows' mass they hold; `dense` says that the candidates did not suffice.
    """

    verticals: torch.Tensor
    slashes: torch.Tensor
    coverage: float
    dense: bool


@dataclass(frozen=True, slots=True)
class HeadDensity:
    """One head's density. `coverage` is what the lines hold on rows that did not choose them.

    `cheapest` is what the cheapest lines found would cost; `verticals` and `slashes` count the greedy ones.
    """

    layer: int
    head: int
    entries: float
    lines: float
    cheapest: float
    coverage: float
    verticals: int
    slashes: int


def sample_rows(length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of rows of the last half, ascending: one to choose lines with and one to check them on.

    Each is `BLOCKS` blocks of `BLOCK_ROWS` neighbouring rows, spread evenly and alternating.
    """
    start = length // 2
    slots = 2 * BLOCKS
    size = (length - start) // slots
    if size < BLOCK_ROWS:
        raise ValueError(f"density needs at least {2 * slots * BLOCK_ROWS} tokens, not {length}")
    shifts = torch.randint(size - BLOCK_ROWS + 1, (slots,), generator=generator)
    blocks = start + torch.arange(slots) * size + shifts
    rows = blocks[:, None] + torch.arange(BLOCK_ROWS)
    return rows[0::2].flatten(), rows[1::2].flatten()


def row_probabilities(query: torch.Tensor, keys: torch.Tensor, rows: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention of single rows: query [m, D] at absolute positions `rows` over keys [N, D], as fp32 [m, N]."""
    scores = query.float() @ keys.float().T * scaling
    future = torch.arange(keys.shape[0], device=rows.device) > rows[:, None]
    return scores.masked_fill(future, float("-inf")).softmax(-1)


def entry_share(probabilities: torch.Tensor, rows: torch.Tensor, alpha: float) -> float:
    """The mean over rows of: fewest keys that hold `alpha` of the row's mass / keys the row sees."""
    held = probabilities.sort(-1, descending=True).values.cumsum(-1)
    needed = (held < alpha).sum(-1) + 1
    visible = rows + 1
    return float((torch.minimum(needed, visible) / visible).mean())


def select_lines(probabilities: torch.Tensor, rows: torch.Tensor, alpha: float) -> Lines:
    """The greedy choice by mass among the best `CANDIDATES` lines; sinks and the local band come first.

    Coverage is exact: an entry counts with the first of its two lines that is taken.
    """
    length = probabilities.shape[1]
    device = probabilities.device
    offsets = rows[:, None] - torch.arange(length, device=device)
    slash_of = offsets.clamp(min=0)  # the future has no mass, so it may fall on slash 0
    vertical_mass = probabilities.sum(0)
    slash_mass = torch.zeros(length, device=device).index_add_(0, slash_of.flatten(), probabilities.flatten())
    mass = torch.cat([vertical_mass, slash_mass])
    mass[: min(SINKS, length)] = float("inf")
    mass[length : length + min(LOCAL, length)] = float("inf")
    order = mass.sort(descending=True, stable=True).indices[:CANDIDATES]
    rank = torch.full((2 * length,), len(order), device=device)
    rank[order] = torch.arange(len(order), device=device)
    first = torch.minimum(rank[:length].expand_as(slash_of), rank[length:][slash_of])
    gained = torch.zeros(len(order) + 1, device=device, dtype=torch.float64)
    gained.index_add_(0, first.flatten(), probabilities.flatten().double())
    covered = gained[:-1].cumsum(0) / len(rows)
    dense = bool(covered[-1] < alpha)
    forced = min(SINKS, length) + min(LOCAL, length)
    taken = len(order) if dense else max(forced, int((covered < alpha).sum()) + 1)
    chosen = order[:taken].sort().values
    return Lines(chosen[chosen < length], chosen[chosen >= length] - length, float(covered[taken - 1]), dense)


def cheapest_lines(probabilities: torch.Tensor, rows: torch.Tensor, alpha: float) -> Lines:
    """The cheapest of `SLASH_COUNTS` choices: so many slashes by mass, then verticals by what those leave.

    For a given number of slashes the largest residuals are the fewest verticals that reach `alpha`,
    since verticals never overlap each other.
    """
    length = probabilities.shape[1]
    device = probabilities.device
    slash_of = (rows[:, None] - torch.arange(length, device=device)).clamp(min=0)
    slash_mass = torch.zeros(length, device=device).index_add_(0, slash_of.flatten(), probabilities.flatten())
    slash_mass[: min(LOCAL, length)] = float("inf")
    order = slash_mass.sort(descending=True, stable=True).indices
    counts = torch.logspace(0, 1, SLASH_COUNTS, base=max(2, length // 2)).round().int().clamp(min=LOCAL).unique()
    best, best_share = None, 2.0
    for count in counts.tolist():
        on_slash = torch.zeros(length, dtype=torch.bool, device=device)
        on_slash[order[:count]] = True
        left = probabilities.masked_fill(on_slash[slash_of], 0.0).sum(0, dtype=torch.float64)
        held = 1 - left.sum() / len(rows)
        left[: min(SINKS, length)] += len(rows)  # sinks come first; their true mass counts again below
        vertical_order = left.sort(descending=True, stable=True).indices
        left[: min(SINKS, length)] -= len(rows)
        covered = held + left[vertical_order].cumsum(0) / len(rows)
        taken = min(length, max(SINKS, int((covered < alpha).sum()) + 1))
        lines = Lines(
            vertical_order[:taken].sort().values, order[:count].sort().values, float(covered[taken - 1]), dense=False
        )
        share = line_share(lines, length)
        if share < best_share:
            best, best_share = lines, share
    assert best is not None
    return best


def covered_mass(probabilities: torch.Tensor, rows: torch.Tensor, lines: Lines) -> float:
    """The mean share of the rows' mass that lies on the lines."""
    length = probabilities.shape[1]
    offsets = rows[:, None] - torch.arange(length, device=probabilities.device)
    on_vertical = torch.zeros(length, dtype=torch.bool, device=probabilities.device)
    on_vertical[lines.verticals] = True
    on_slash = torch.zeros(length, dtype=torch.bool, device=probabilities.device)
    on_slash[lines.slashes] = True
    hit = (on_vertical | on_slash[offsets.clamp(min=0)]) & (offsets >= 0)
    return float((probabilities * hit).sum() / len(rows))


def line_share(lines: Lines, length: int) -> float:
    """The share of all causal entries of a [length, length] attention that lie on the lines; 1 when dense."""
    if lines.dense:
        return 1.0
    entries = int((length - lines.verticals).sum() + (length - lines.slashes).sum())
    # Vertical k and slash d meet once, at row k + d, if there is such a row.
    meetings = int(torch.searchsorted(lines.verticals, length - lines.slashes).sum())
    return (entries - meetings) / (length * (length + 1) / 2)


def head_density(
    layer: int,
    head: int,
    query: torch.Tensor,
    keys: torch.Tensor,
    rows: tuple[torch.Tensor, torch.Tensor],
    scaling: float,
    alpha: float,
) -> HeadDensity:
    """One head's densities: `query` [rows to choose + rows to check, D] after RoPE, `keys` [N, D]."""
    choosing, checking = rows
    length = keys.shape[0]
    probabilities = row_probabilities(query[: len(choosing)], keys, choosing, scaling)
    lines = select_lines(probabilities, choosing, alpha)
    fresh = row_probabilities(query[len(choosing) :], keys, checking, scaling)
    return HeadDensity(
        layer=layer,
        head=head,
        entries=entry_share(probabilities, choosing, alpha),
        lines=line_share(lines, length),
        cheapest=line_share(cheapest_lines(probabilities, choosing, alpha), length),
        coverage=1.0 if lines.dense else covered_mass(fresh, checking, lines),
        verticals=len(lines.verticals),
        slashes=len(lines.slashes),
    )
