"""The greedy choice's kernels against their twins under the interpreter. test_triton_interpreted.py runs it apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_oracle import exact_weights, random_lines
from test_coverage import SCALING, chosen, covered_by_hand, sample
from torch import Tensor
from triton_interpreted import nan_filled

from loopserve_kernels.choice import fewer, greedy_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.greedy_triton import greedy_lines_triton
from loopserve_kernels.lines import line_mass_torch
from loopserve_kernels.lines_triton import line_mass_triton
from loopserve_kernels.mass import LineMass
from loopserve_kernels.rules import Rules
from loopserve_kernels.tradeoff import best_tradeoff
from loopserve_kernels.tradeoff_triton import best_tradeoff_triton
from loopserve_kernels.weights import sampled_weights


def assert_same(ours: Lines, theirs: Lines, keys: int) -> None:
    """The same lines, padded with `keys`, under the same flags."""
    for plan in range(theirs.dense.shape[0]):
        assert chosen(ours, plan) == chosen(theirs, plan)
        assert bool((ours.vertical[plan, ours.vertical_count[plan] :] == keys).all())
        assert bool((ours.slash[plan, ours.slash_count[plan] :] == keys).all())
    for name in ("vertical_count", "slash_count", "dense", "wide"):
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.allclose(ours.coverage, theirs.coverage, atol=1e-6)


def masses(rows: Tensor, positions: Tensor, key: Tensor, share: str) -> tuple[LineMass, LineMass]:
    """As the kernels sum them, and the twin's weights with the very same masses: a rounding reorders no lines."""
    mass = line_mass_triton(rows, positions, key, SCALING, share)
    twin = line_mass_torch(rows, positions, key, SCALING, share)
    return mass, replace(twin, vertical=mass.vertical, slash=mass.slash)


GREEDY = [
    # keys, rows, lines that a program holds at once, what the rows see, share, alpha, candidates
    (1, 1, 2048, "noise", "head", 0.95, 4096),
    (5, 5, 2048, "noise", "group", 0.95, 4096),
    (5, 5, 2048, "noise", "group", 0.95, 4),
    (90, 17, 32, "noise", "head", 0.3, 4096),
    (90, 17, 32, "noise", "group", 0.95, 4096),
    (90, 17, 32, "lines", "head", 0.95, 4096),
    (90, 17, 32, "lines", "head", 0.95, 9),
    (90, 17, 32, "band", "head", 0.8, 4096),
    (90, 17, 32, "band", "group", 1.0, 4096),
    (333, 20, 128, "lines", "group", 0.95, 4096),
    (333, 20, 256, "band", "head", 0.97, 4096),
]


@pytest.mark.parametrize(("keys", "count", "block", "kind", "share", "alpha", "candidates"), GREEDY)
def test_greedy_finds_the_twin_s_lines(
    keys: int,
    count: int,
    block: int,
    kind: str,
    share: str,
    alpha: float,
    candidates: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the line, and what they cover is what float64 weights say."""
    nan_filled(monkeypatch)
    monkeypatch.setattr("loopserve_kernels.greedy_triton.BLOCK", block)
    monkeypatch.setattr("loopserve_kernels.greedy_triton.CHUNK", block // 2)
    rows, positions, key = sample(kind, 4, 2, keys, count)
    rules = Rules(alpha, candidates=candidates, sinks=2, local=3)
    mass, twin = masses(rows, positions, key, share)
    ours = greedy_lines_triton(mass, positions, rules)
    assert_same(ours, greedy_lines(twin, rules), keys)
    plans = ours.dense.shape[0]
    weights = exact_weights(rows, positions, key, SCALING).unflatten(0, (plans, -1)).mean(1)
    for plan in range(plans):
        if ours.dense[plan]:
            assert alpha == 1 or candidates < 10
        else:
            covered = covered_by_hand(weights[plan], positions, *chosen(ours, plan))
            assert covered >= alpha - 1e-6 and abs(covered - float(ours.coverage[plan])) < 1e-6


@pytest.mark.parametrize("alpha", [0.125, 0.5, 0.75, 0.96875, 1 - 2**-20])
@pytest.mark.parametrize(("sinks", "local"), [(0, 1), (4, 2), (0, 40)])
def test_lines_of_one_mass_are_taken_by_index(alpha: float, sinks: int, local: int) -> None:
    """Weights that add up without rounding: most lines weigh the same, and alpha is met to the bit."""
    keys, positions = 40, torch.arange(32, 40)
    weights, lse = sampled_weights(torch.zeros(2, 8, 4), positions, torch.zeros(1, keys, 4), 1.0)
    (block,) = weights.blocks()
    seen = positions[:, None] - torch.arange(keys)
    block[0] = ((seen >= 0) & (seen < 32)) / 32.0
    block[1] = ((seen >= 0) & (torch.arange(keys) % 4 == 0) & (torch.arange(keys) < 32)) / 8.0
    twin = LineMass(lse, weights.by_key(keys), weights.by_offset(keys), weights)
    unseen = torch.where(seen >= 0, block, float("nan"))  # as on a GPU, where nobody writes those
    rules = Rules(alpha, sinks=sinks, local=local)
    theirs = greedy_lines(twin, rules)
    ours = greedy_lines_triton(replace(twin, weights=unseen), positions, rules)
    assert_same(ours, theirs, keys)
    assert torch.equal(ours.coverage, theirs.coverage)
    if (sinks, local) == (0, 1) and alpha == 0.5:
        assert float(ours.coverage[0]) == 0.5, "met exactly"


@pytest.mark.parametrize(("share", "candidates"), [("head", 4096), ("group", 4096), ("head", 60)])
def test_optimal_takes_the_twin_s_lines(share: str, candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, positions, key = sample("band", 2, 1, 90, 17)
    rows[1] = torch.randn(17, 32, generator=torch.Generator().manual_seed(0))
    rules = Rules(0.95, candidates=candidates, sinks=2, local=3, objective="optimal")
    mass, twin = masses(rows, positions, key, share)
    nan_filled(monkeypatch)
    ours = greedy_lines_triton(mass, positions, rules, best_tradeoff_triton(mass, positions, rules))
    greedy = greedy_lines(twin, rules)
    theirs = fewer(greedy, best_tradeoff(twin, rules), 90)
    assert_same(ours, theirs, 90)
    counts = [lines.vertical_count + lines.slash_count for lines in (theirs, greedy)]
    assert bool((counts[0] < counts[1]).any())


@pytest.mark.parametrize("candidates", [4096, 30])
def test_the_other_lines_are_taken_where_they_are_no_more(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lines, fewer, as many, and dense ones, beside heads that greed covers and one that it does not."""
    rows, positions, key = sample("band", 8, 2, 90, 17)
    rows[4:] = torch.randn(4, 17, 32, generator=torch.Generator().manual_seed(0))
    rules = Rules(0.8, candidates=candidates, sinks=2, local=3, objective="optimal")
    mass, twin = masses(rows, positions, key, "head")
    greedy = greedy_lines(twin, rules)
    assert greedy.dense.tolist() == [False] * 4 + [candidates == 30] * 4
    given = random_lines(8, 90, 3, most=25)
    given.dense[[2, 5]] = True
    total = (greedy.vertical_count + greedy.slash_count).tolist()
    for plan, slashes in ((0, total[0]), (1, total[1] + 1), (3, total[3] - 1)):
        given.vertical_count[plan], given.slash_count[plan] = 0, slashes
        given.slash[plan, :slashes] = torch.arange(slashes)
        given.vertical[plan] = 90
    given = replace(given, coverage=torch.linspace(0.81, 0.89, 8))
    theirs = fewer(greedy, given, 90)
    taken = [bool(theirs.coverage[plan] == given.coverage[plan]) for plan in range(8)]
    assert taken[:4] == [True, False, False, True] and taken[5] is False and any(taken[4:])
    nan_filled(monkeypatch)
    assert_same(greedy_lines_triton(mass, positions, rules, given), theirs, 90)
