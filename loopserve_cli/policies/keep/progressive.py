"""LoopServe's second phase: keys are chosen again every few output tokens, from what those tokens looked at.

Source: LoopServe (arXiv 2507.13681). Nothing is evicted: every choice is made from the full history. Ours is `follow`:
what stood after the keys that were looked at comes along.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow, even_keys
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.selection import select_keys


class Progressive(KeepPolicy):
    """`budget` keys per key-value head, from the mean attention of the newest `interval` queries."""

    def __init__(
        self, budget: int, interval: int, first: str, group: str, follow: int, sinks: int, recent: int
    ) -> None:
        """Settings as the profile explains them."""
        self.budget = budget
        self.interval = interval
        self.window = interval
        self.first_full = first == "full"
        self.group = group
        self.follow = follow
        self.sinks = sinks
        self.recent = recent

    def leaves_out(self, keys: int) -> bool:
        """Whether there are more keys than the budget."""
        return keys > self.budget

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """The same number of keys for every head."""
        masses = [
            key_mass(one.query, one.positions, one.key, one.scaling, self.group, codes=one.codes) for one in windows
        ]
        mass = with_followers(torch.cat(masses), self.follow)
        sinks = min(self.sinks, self.budget)
        chosen = select_keys(mass, self.budget, sinks, min(self.recent, self.budget - sinks))
        return even_keys(chosen.index, len(masses))


def with_followers(mass: Tensor, follow: int) -> Tensor:
    """Every key's mass [G, N], or that of one of the `follow` keys before it where it is larger.

    A model that repeats what it read looks at where its own last words stand, and will look at the words after them:
    those are the next tokens of the answer, which no query has looked at yet when they are chosen.
    """
    if not follow:
        return mass
    return F.max_pool1d(F.pad(mass, (follow, 0))[:, None], follow + 1, stride=1)[:, 0]
