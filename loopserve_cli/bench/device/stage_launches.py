"""Launches and waits beside their budgets: counted without a GPU, so the same wherever the versions are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.device.budgets import BUDGETS, Budget

QUICK = ("choosing", "step, loopserve")


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record per budget."""
    del device  # the meta device, at an 8B model's shape
    for budget in [budget for budget in BUDGETS if scale != "quick" or budget.name in QUICK]:
        facts: Record = {"name": budget.name, "what": budget.what, "per": budget.per}
        facts |= {"most_launches": budget.launches, "most_waits": budget.waits}
        yield attempt(facts, partial(found, budget))


def found(budget: Budget) -> Record:
    """What is counted now."""
    counted = budget.count()
    return {"launches": counted.launches, "waits": counted.waits, "names": dict(counted.names)}
