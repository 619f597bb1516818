"""Selection against a loop over keys: forced ends, ties, budgets of every size, one per head."""

from __future__ import annotations

import pytest
import torch

from loopserve_kernels.selection import best, best_places, padded_places, select_keys


def by_hand(mass: list[float], budget: int, sinks: int, recent: int, length: int) -> list[int]:
    """The best keys of one head, by sorting all of them."""
    forced = {key for key in range(length) if key < sinks or key >= length - recent}
    free = sorted(set(range(length)) - forced, key=lambda key: (-mass[key], key))
    return sorted([*forced, *free][: max(budget, len(forced))])


@pytest.mark.parametrize("budget", [8, 9, 30, 64, 65, 200])
@pytest.mark.parametrize("length", [1, 5, 8, 40, 65])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_selection_equals_sorting(budget: int, length: int, as_tensor: bool) -> None:
    mass = torch.rand(3, 65, generator=torch.Generator().manual_seed(budget + length)).mul(20).floor().div(20)
    mass[:, length:] = float("nan")
    chosen = select_keys(mass, budget, 3, 5, torch.tensor(length) if as_tensor else length)
    assert chosen.index.shape == (3, budget) and chosen.index.dtype == chosen.count.dtype == torch.int32
    for head in range(3):
        count = int(chosen.count[head])
        assert chosen.index[head, :count].tolist() == by_hand(mass[head].tolist(), budget, 3, 5, length)
        assert count == min(budget, length)
        assert chosen.index[head, count:].tolist() == [65] * (budget - count), "padded with N"


def test_a_budget_for_everything_is_everything_in_order() -> None:
    mass = torch.rand(2, 50)
    for budget in (50, 51, 80):
        chosen = select_keys(mass, budget, 4, 10)
        assert chosen.index[:, :50].tolist() == [list(range(50))] * 2
        assert chosen.count.tolist() == [50, 50]


def test_ties_fall_by_index() -> None:
    chosen = select_keys(torch.zeros(1, 20), 6, 1, 2)
    assert chosen.index.tolist() == [[0, 1, 2, 3, 18, 19]]


def test_budgets_per_head() -> None:
    mass = torch.rand(4, 40, generator=torch.Generator().manual_seed(1))
    chosen = select_keys(mass, 20, 2, 3, budgets=torch.tensor([20, 11, 1, 99], dtype=torch.int32))
    assert chosen.count.tolist() == [20, 11, 5, 20], "no fewer than what is forced, no more than the width"
    for head, count in enumerate([20, 11, 5, 20]):
        assert chosen.index[head, :count].tolist() == by_hand(mass[head].tolist(), count, 2, 3, 40)
        assert chosen.index[head, count:].tolist() == [40] * (20 - count)
    few = select_keys(mass, 20, 2, 3, 7, torch.tensor([20, 11, 6, 5]))
    assert few.count.tolist() == [7, 7, 6, 5]


def test_a_budget_below_what_is_forced_is_refused() -> None:
    with pytest.raises(AssertionError, match="4 sinks, 8 recent, budget 11"):
        select_keys(torch.rand(1, 50), 11, 4, 8)


@pytest.mark.gpu
def test_a_gpu_selects_what_a_cpu_selects_and_waits_for_nothing() -> None:
    mass = torch.rand(8, 30000).mul(1000).floor()
    ours = select_keys(mass, 1024, 4, 64, 29000, torch.arange(100, 900, 100))
    given = (mass.cuda(), 1024, 4, 64, torch.tensor(29000).cuda(), torch.arange(100, 900, 100).cuda())
    torch.cuda.set_sync_debug_mode("error")
    try:
        theirs = select_keys(*given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(theirs.index.cpu(), ours.index) and torch.equal(theirs.count.cpu(), ours.count)


@pytest.mark.parametrize("count", [1, 7, 40, 300])
def test_a_cpus_own_way_finds_the_same(count: int) -> None:
    """Masses with many ties at the cut, as followers make them."""
    mass = torch.rand(5, 300, generator=torch.Generator().manual_seed(count)).mul(9).floor()
    wanted = padded_places(best(mass, torch.full((5,), count, dtype=torch.int32), count), count)
    assert torch.equal(best_places(mass, count), wanted)
