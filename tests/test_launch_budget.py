"""Launches and waits stay within their budgets, counted on meta tensors at the shape of an 8B model."""

from __future__ import annotations

import pytest
import torch
from launches import counted

from loopserve_cli.bench.device import budgets
from loopserve_cli.bench.device.budgets import BUDGETS, Budget

# Until what a budget is not kept; each goes with the mark of its row.
UNTIL = {
    "choosing": "choosing is one pass over the sampled rows, and its index a few launches",
    "step": "a decode step's kernels are fused, and its numbers advance on the device",
    "re-selection": "keys are chosen for all layers at once",
}


def marked(budget: Budget) -> object:
    reason = UNTIL.get(budget.name.partition(",")[0])
    marks = [] if reason is None else [pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"until {reason}")]
    return pytest.param(budget, id=budget.name, marks=marks)


@pytest.mark.parametrize("budget", [marked(budget) for budget in BUDGETS])
def test_a_budget_is_kept(budget: Budget) -> None:
    found = budget.count()
    print(f"\n{budget.what}: {found.launches:g} launches, {found.waits:g} waits: {found.names.most_common(12)}")
    assert found.launches <= budget.launches, f"{found.launches:g} launches per {budget.per}: {found.names}"
    assert found.waits <= budget.waits, f"{found.waits:g} waits per {budget.per}"


def test_the_counts_are_not_empty() -> None:
    # A count of nothing would keep every budget.
    for budget in BUDGETS:
        if budget.name in ("choosing", "step, full", "re-selection"):
            assert budget.count().launches >= 2


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


def test_the_table_has_a_row_for_every_budget(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(budgets, "counts", lambda: ((b, budgets.Found(7, 1, b.count and {})) for b in BUDGETS))
    lines = budgets.markdown().splitlines()
    assert len(lines) == 2 + len(BUDGETS)
    assert lines[2] == "| choosing lines and the index | layer and chunk | 7 | 40 | 1 | 0 |"
