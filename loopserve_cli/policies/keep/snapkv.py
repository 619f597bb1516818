"""SnapKV: what the prompt's last window looks at, smoothed along the keys (arXiv 2404.14469)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow, even_keys
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.selection import select_keys


class SnapKV(KeepPolicy):
    """Chosen once, after prefill: the window itself, and the `budget - window` keys it attends to most."""

    def __init__(self, budget: int, window: int, pool_width: int) -> None:
        """Keys in all, queries that judge, and over how many neighbouring keys their attention is averaged (odd)."""
        self.budget = budget
        self.window = min(window, budget)
        self.pool_width = pool_width

    def leaves_out(self, keys: int) -> bool:
        """Whether there are more keys than the budget."""
        return keys > self.budget

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """The same number of keys for every head."""
        scores, rows, layers = self.scores(windows)
        chosen = select_keys(scores, self.budget, sinks=0, recent=rows)
        return even_keys(chosen.index, layers)

    def scores(self, windows: Iterable[ScoringWindow]) -> tuple[Tensor, int, int]:
        """Scores [layers x G, N], how many keys the window has, and how many layers there are.

        A score is the mean attention of the window to a key before it, pooled; keys inside the window score 0.
        Pooling stops at the window's edge, as in the authors' code and in kvpress.
        """
        masses, rows = [], 0
        for one in windows:
            rows, keys = one.query.shape[1], one.key.shape[1]
            mass = key_mass(one.query, one.positions, one.key, one.scaling, "mean")
            masses.append(mass[:, : keys - rows])
        width = self.pool_width
        pooled = F.avg_pool1d(torch.cat(masses)[:, None], width, stride=1, padding=width // 2)[:, 0]
        return F.pad(pooled, (0, rows)), rows, len(masses)
