"""LoopServe's second phase: keys are chosen again every few output tokens, from what those tokens looked at.

Source: LoopServe (arXiv 2507.13681). Nothing is evicted: every choice is made from the full history.
"""

from __future__ import annotations

from loopserve_cli.policies.keep.base import Keys, Seen
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.selection import select_keys


class Progressive:
    """`budget` keys per key-value head, from the mean attention of the newest `interval` queries."""

    accumulates = False

    def __init__(self, budget: int, interval: int, first: str, group: str, sinks: int, recent: int) -> None:
        """Settings as the profile explains them."""
        self.budget = budget
        self.interval = interval
        self.window = interval
        self.first_full = first == "full"
        self.group = group
        self.sinks = sinks
        self.recent = recent

    def select(self, seen: Seen) -> Keys | None:
        """The same number of keys for every head."""
        if self.budget >= seen.key.shape[1]:
            return None
        mass = key_mass(seen.query, seen.positions, seen.key, seen.scaling, self.group)
        sinks = min(self.sinks, self.budget)
        chosen = select_keys(mass, self.budget, sinks, min(self.recent, self.budget - sinks))
        return Keys(chosen.index, chosen.count, even=True)
