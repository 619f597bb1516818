"""The choice of lines: coverage is exact, the prefix is the smallest, and ties fall the same way every time."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import exact_weights
from torch import Tensor

from loopserve_kernels.choice import choose_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.lines import line_mass
from loopserve_kernels.ranking import ranked
from loopserve_kernels.rules import Rules

SCALING = 0.25


def sample(kind: str, heads: int, groups: int, keys: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, positions and keys: noise alone, with heavy keys, a sink and a heavy offset, or a band beside a sink."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(groups, keys, 32, generator=generator)
    positions = torch.arange(keys - count, keys)
    rows = torch.randn(heads, count, 32, generator=generator)
    if kind == "lines":
        common = torch.randn(32, generator=generator)
        rows = 0.5 * rows + 2 * common / common.norm()
        for place in [0, *torch.randint(keys, (6,), generator=generator).tolist()]:
            key[:, place] += 14 * common / common.norm()
        for head in range(heads):
            rows[head] += 2.5 * key[head * groups // heads, positions - 5]
    if kind == "band":
        key[:, 0] += 4 * rows.mean((0, 1))
        for head in range(heads):
            rows[head] += sum(key[head * groups // heads, positions - offset] for offset in range(4))
    return rows, positions, key


def covered_by_hand(weights: Tensor, positions: Tensor, vertical: list[int], slash: list[int]) -> float:
    """Share of one head's weights [m, N] on a set of lines."""
    columns = torch.arange(weights.shape[1])
    cells = torch.zeros_like(weights, dtype=torch.bool)
    for key in vertical:
        cells |= columns == key
    for offset in slash:
        cells |= positions[:, None] - columns == offset
    return float(weights[cells].sum() / weights.shape[0])


def chosen(lines: Lines, plan: int) -> tuple[list[int], list[int]]:
    return (
        lines.vertical[plan, : lines.vertical_count[plan]].tolist(),
        lines.slash[plan, : lines.slash_count[plan]].tolist(),
    )


def choose(rows: Tensor, positions: Tensor, key: Tensor, rules: Rules, share: str = "head") -> Lines:
    return choose_lines(line_mass(rows, positions, key, SCALING, share), rows, positions, key, SCALING, rules)


@pytest.mark.parametrize("kind", ["noise", "lines", "band"])
@pytest.mark.parametrize("objective", ["lines", "optimal", "latency"])
@pytest.mark.parametrize("alpha", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("share", ["head", "group"])
def test_coverage_is_what_brute_force_finds(kind: str, objective: str, alpha: float, share: str) -> None:
    rows, positions, key = sample(kind, 4, 2, 120, 24)
    lines = choose(rows, positions, key, Rules(alpha, sinks=2, local=3, objective=objective), share)
    weights = exact_weights(rows, positions, key, SCALING)
    if share == "group":
        weights = weights.reshape(2, 2, 24, 120).mean(1)
    assert lines.dense.shape == (weights.shape[0],)
    for plan in range(weights.shape[0]):
        vertical, slash = chosen(lines, plan)
        assert not lines.dense[plan]
        assert set(range(2)) <= set(vertical) and set(range(3)) <= set(slash)
        assert vertical == sorted(set(vertical)) and slash == sorted(set(slash))
        covered = covered_by_hand(weights[plan], positions, vertical, slash)
        assert float(lines.coverage[plan]) == pytest.approx(covered, abs=1e-5)
        assert covered >= alpha - 1e-6


@pytest.mark.parametrize("kind", ["noise", "lines", "band"])
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_the_prefix_is_the_smallest(kind: str, alpha: float) -> None:
    rows, positions, key = sample(kind, 3, 1, 90, 20)
    lines = choose(rows, positions, key, Rules(alpha, sinks=1, local=1))
    weights = exact_weights(rows, positions, key, SCALING)
    mass = line_mass(rows, positions, key, SCALING)
    for head in range(3):
        vertical, slash = chosen(lines, head)
        kept = [(float(mass.vertical[head, key]), -key, "v") for key in vertical if key > 0]
        kept += [(float(mass.slash[head, offset]), -90 - offset, "s") for offset in slash if offset > 0]
        last = min(kept)
        without = (
            [key for key in vertical if (float(mass.vertical[head, key]), -key, "v") != last],
            [offset for offset in slash if (float(mass.slash[head, offset]), -90 - offset, "s") != last],
        )
        assert covered_by_hand(weights[head], positions, *without) < alpha
        left_out = [float(mass.vertical[head, key]) for key in range(90) if key not in vertical]
        left_out += [float(mass.slash[head, offset]) for offset in range(90) if offset not in slash]
        assert max(left_out) <= last[0]


def exact_greedy(weights: Tensor, positions: Tensor, alpha: float) -> int:
    """How many lines a greedy takes that picks the most uncovered mass each time; offset 0 and key 0 come first."""
    keys = weights.shape[1]
    offset = (positions[:, None] - torch.arange(keys)).clamp_min(-1)
    left = weights.clone()
    left[:, 0] = 0
    left[offset == 0] = 0
    taken = 2
    while float(left.sum()) / weights.shape[0] > 1 - alpha:
        slash = torch.zeros(keys, dtype=left.dtype).index_add_(0, offset.clamp_min(0).flatten(), left.flatten())
        vertical = left.sum(0)
        if float(vertical.max()) >= float(slash.max()):
            left[:, int(vertical.argmax())] = 0
        else:
            left[offset == int(slash.argmax())] = 0
        taken += 1
    return taken


@pytest.mark.parametrize("kind", ["noise", "lines", "band"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.8, 0.95])
def test_optimal_needs_no_more_than_lines_and_about_the_exact_greedy(kind: str, seed: int, alpha: float) -> None:
    rows, positions, key = sample(kind, 2, 1, 100, 25, seed)
    weights = exact_weights(rows, positions, key, SCALING)
    counts = {}
    for objective in ("lines", "optimal"):
        lines = choose(rows, positions, key, Rules(alpha, sinks=1, local=1, objective=objective))
        counts[objective] = (lines.vertical_count + lines.slash_count).tolist()
    for head in range(2):
        assert counts["optimal"][head] <= counts["lines"][head]
        assert counts["optimal"][head] <= 1.05 * exact_greedy(weights[head], positions, alpha) + 1


def test_latency_avoids_slashes_that_stand_alone() -> None:
    rows, positions, key = sample("noise", 2, 1, 200, 32)
    found = {
        objective: choose(rows, positions, key, Rules(0.9, sinks=1, local=1, objective=objective, rows_per_block=64))
        for objective in ("lines", "latency")
    }
    assert int(found["latency"].slash_count.sum()) < int(found["lines"].slash_count.sum())


def test_a_head_that_does_not_reach_alpha_is_dense() -> None:
    rows, positions, key = sample("noise", 2, 1, 300, 32)
    rows[1] = rows[1] * 0 + key[0, positions] * 12  # all mass at offset 0
    for objective in ("lines", "optimal", "latency"):
        lines = choose(rows, positions, key, Rules(0.9, candidates=20, sinks=2, local=4, objective=objective))
        assert lines.dense.tolist() == [True, False]
        assert lines.coverage[0] == 1
        assert lines.vertical_count[0] == 0 and lines.slash_count[0] == 0


def test_alpha_of_one_is_dense() -> None:
    rows, positions, key = sample("lines", 2, 1, 50, 10)
    for objective in ("lines", "optimal", "latency"):
        assert choose(rows, positions, key, Rules(1.0, objective=objective)).dense.all()


def test_ties_fall_by_index() -> None:
    mass = torch.tensor([[0.5, 2.0, 0.5, 2.0, 0.0, 0.5]])
    assert ranked(mass, 5).tolist() == [[1, 3, 0, 2, 5]]
    rows, positions, key = torch.zeros(1, 8, 16), torch.arange(40, 48), torch.zeros(1, 48, 16)
    first = choose(rows, positions, key, Rules(0.5, sinks=0, local=1))
    again = choose(rows, positions, key, Rules(0.5, sinks=0, local=1))
    assert torch.equal(first.vertical, again.vertical) and torch.equal(first.slash, again.slash)


@pytest.mark.parametrize(("keys", "count"), [(1, 1), (2, 1), (5, 5)])
def test_fewer_keys_than_forced_lines(keys: int, count: int) -> None:
    rows, positions, key = sample("noise", 2, 1, keys, count)
    for objective in ("lines", "optimal", "latency"):
        lines = choose(rows, positions, key, Rules(0.95, objective=objective))
        assert float(lines.coverage.min()) >= 0.95
