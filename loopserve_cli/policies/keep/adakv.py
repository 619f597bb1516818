"""AdaKV: SnapKV's scores, with the layer's budget shared out between its heads (arXiv 2407.11550)."""

from __future__ import annotations

import torch

from loopserve_cli.policies.keep.base import Keys, Seen
from loopserve_cli.policies.keep.snapkv import SnapKV


class AdaKV(SnapKV):
    """Heads compete for `budget` x heads keys; each keeps at least the share `floor` of the budget."""

    def __init__(self, budget: int, window: int, pool_width: int, floor: float) -> None:
        """SnapKV's settings, and the share of the budget that no head can lose."""
        super().__init__(budget, window, pool_width)
        self.floor = floor

    def select(self, seen: Seen) -> Keys | None:
        """As many keys as each head won; padded to the largest."""
        groups, keys = seen.key.shape[:2]
        if self.budget >= keys:
            return None
        scores = self.scores(seen)
        scores[:, keys - seen.query.shape[1] :] = float("inf")
        safe = scores.topk(int(self.budget * self.floor), dim=1).indices
        scores.scatter_(1, safe, float("inf"))
        kept = torch.zeros(groups * keys, dtype=torch.bool, device=scores.device)
        kept[scores.flatten().topk(groups * self.budget).indices] = True
        kept = kept.reshape(groups, keys)
        count = kept.sum(1, dtype=torch.int32)
        # Per head, chosen keys in ascending order first: a stable sort by "left out".
        order = (~kept).to(torch.int8).sort(dim=1, stable=True).indices
        return Keys(order[:, : int(count.max())].to(torch.int32), count, even=False)
