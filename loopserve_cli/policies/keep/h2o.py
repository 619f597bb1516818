"""H2O: heavy hitters by accumulated attention, and the most recent keys, half and half (arXiv 2306.14048)."""

from __future__ import annotations

from loopserve_cli.policies.keep.base import Keys, Seen
from loopserve_kernels.selection import select_keys


class H2O:
    """Chosen once, after prefill, from the attention of all rows of this turn."""

    window = 0
    interval = None
    accumulates = True
    first_full = False

    def __init__(self, budget: int) -> None:
        """Keys in all."""
        self.budget = budget

    def select(self, seen: Seen) -> Keys | None:
        """The same number of keys for every head."""
        if self.budget >= seen.key.shape[1]:
            return None
        assert seen.accumulated is not None and seen.accumulated.shape[1] == seen.key.shape[1]
        chosen = select_keys(seen.accumulated, self.budget, sinks=0, recent=self.budget // 2)
        return Keys(chosen.index, chosen.count, even=True)
