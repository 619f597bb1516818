"""AdaKV: SnapKV's scores, with the layer's budget shared out between its heads (arXiv 2407.11550)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from loopserve_cli.policies.keep.base import Keys, ScoringWindow
from loopserve_cli.policies.keep.snapkv import SnapKV
from loopserve_kernels.selection import padded_places


class AdaKV(SnapKV):
    """Heads compete for `budget` x heads keys; each keeps at least the share `floor` of the budget."""

    def __init__(self, budget: int, window: int, pool_width: int, floor: float) -> None:
        """SnapKV's settings, and the share of the budget that no head can lose."""
        super().__init__(budget, window, pool_width)
        self.floor = floor

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """As many keys as each head won, padded to the layer's largest: reading that is a choice's one wait."""
        scores, rows, layers = self.scores(windows)
        keys, groups = scores.shape[1], scores.shape[0] // layers
        scores[:, keys - rows :] = float("inf")
        safe = scores.topk(int(self.budget * self.floor), dim=1).indices
        scores.scatter_(1, safe, float("inf"))
        by_layer = scores.unflatten(0, (layers, groups)).flatten(1)
        kept = torch.zeros_like(by_layer, dtype=torch.bool)
        kept.scatter_(1, by_layer.topk(groups * self.budget, dim=1).indices, True)
        kept = kept.unflatten(1, (groups, keys))
        count = kept.sum(2, dtype=torch.int32)
        longest = count.amax(1).tolist()
        index = padded_places(kept.flatten(0, 1), max(longest)).unflatten(0, (layers, groups))
        return [
            Keys(own[:, :width], held, even=False, total=groups * self.budget)
            for own, held, width in zip(index, count, longest, strict=True)
        ]
