"""H2O: heavy hitters by accumulated attention, and the most recent keys, half and half (arXiv 2306.14048)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow, even_keys
from loopserve_kernels.selection import select_keys


class H2O(KeepPolicy):
    """Chosen once, after prefill, from the attention of all rows of this turn."""

    accumulates = True

    def __init__(self, budget: int) -> None:
        """Keys in all."""
        self.budget = budget

    def leaves_out(self, keys: int) -> bool:
        """Whether there are more keys than the budget."""
        return keys > self.budget

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """The same number of keys for every head."""
        masses = []
        for one in windows:
            assert one.accumulated is not None and one.accumulated.shape[1] == one.key.shape[1]
            masses.append(one.accumulated)
        chosen = select_keys(torch.cat(masses), self.budget, sinks=0, recent=self.budget // 2)
        return even_keys(chosen.index, len(masses))
