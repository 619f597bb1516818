"""Launches and waits stay within their budgets, counted on meta tensors at the shape of an 8B model."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from launches import counted

from loopserve_cli.bench.device.budgets import BUDGETS, Budget, Found, markdown


@cache
def found_of(name: str) -> Found:
    return next(budget for budget in BUDGETS if budget.name == name).count()


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.name)
def test_a_budget_is_kept(budget: Budget) -> None:
    found = found_of(budget.name)
    assert found.launches <= budget.launches, f"{found.launches:g} launches per {budget.per}: {found.names}"
    assert found.waits <= budget.waits, f"{found.waits:g} waits per {budget.per}"


def test_the_counts_are_not_empty_and_make_a_table() -> None:
    counts = [(budget, found_of(budget.name)) for budget in BUDGETS]
    # A count of nothing would keep every budget.
    assert min(found.launches for _, found in counts) >= 2
    table = markdown(counts)
    print(f"\n{table}")  # for the README: pytest -s
    assert len(table.splitlines()) == 2 + len(BUDGETS)


def test_what_is_counted_as_a_launch_and_as_a_wait() -> None:
    with counted() as found:
        a = torch.empty(4, 4, device="meta")
        b = (a + 1).view(2, 8).transpose(0, 1)
        b.mul_(2)
    assert (found.launches, found.waits.total()) == (2, 0)  # allocations and views are none
    with counted() as found:
        a.copy_(torch.zeros(4, 4))
        torch.tensor([1, 2], device="meta")
    assert (found.launches, found.waits.total()) == (0, 2)
    with counted() as found:
        a.copy_(torch.zeros(4, 4), non_blocking=True)
    assert found.waits.total() == 0
    with counted() as found, pytest.raises((RuntimeError, NotImplementedError)):
        a.sum().item()


def test_a_row_of_the_table() -> None:
    assert markdown([(BUDGETS[0], Found(7.25, 1, Counter()))]).splitlines()[2] == (
        "| choosing lines and the index | layer and chunk | 7.25 | 40 | 1 | 0 |"
    )
