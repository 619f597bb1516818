"""SnapKV: what the prompt's last window looks at, smoothed along the keys (arXiv 2404.14469)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.policies.keep.base import Keys, Seen
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.selection import select_keys


class SnapKV:
    """Chosen once, after prefill: the window itself, and the `budget - window` keys it attends to most."""

    interval = None
    accumulates = False
    first_full = False

    def __init__(self, budget: int, window: int, pool_width: int) -> None:
        """Keys in all, queries that judge, and over how many neighbouring keys their attention is averaged (odd)."""
        self.budget = budget
        self.window = min(window, budget)
        self.pool_width = pool_width

    def select(self, seen: Seen) -> Keys | None:
        """The same number of keys for every head."""
        keys = seen.key.shape[1]
        if self.budget >= keys:
            return None
        chosen = select_keys(self.scores(seen), self.budget, sinks=0, recent=seen.query.shape[1])
        return Keys(chosen.index, chosen.count, even=True)

    def scores(self, seen: Seen) -> Tensor:
        """Mean attention of the window to every key before it, pooled, [G, N]; keys inside the window score 0.

        Pooling stops at the window's edge, as in the authors' code and in kvpress.
        """
        rows, keys = seen.query.shape[1], seen.key.shape[1]
        mass = key_mass(seen.query, seen.positions, seen.key, seen.scaling, "mean")[:, : keys - rows]
        width = self.pool_width
        pooled = F.avg_pool1d(mass[:, None], width, stride=1, padding=width // 2)[:, 0]
        return F.pad(pooled, (0, rows))
