"""StreamingLLM: the first keys and the most recent ones (arXiv 2309.17453)."""

from __future__ import annotations

import torch

from loopserve_cli.policies.keep.base import Keys, Seen


class Streaming:
    """`sinks` first keys and `budget - sinks` recent ones, the same for every head."""

    window = 0
    interval = None
    accumulates = False
    first_full = False

    def __init__(self, budget: int, sinks: int) -> None:
        """Keys in all, and how many of them are the first."""
        self.budget = budget
        self.sinks = min(sinks, budget)

    def select(self, seen: Seen) -> Keys | None:
        """Positions alone decide."""
        groups, keys = seen.key.shape[:2]
        if self.budget >= keys:
            return None
        device = seen.key.device
        recent = self.budget - self.sinks
        index = torch.cat([torch.arange(self.sinks, device=device), torch.arange(keys - recent, keys, device=device)])
        count = torch.full((groups,), self.budget, dtype=torch.int32, device=device)
        return Keys(index.to(torch.int32).expand(groups, -1), count, even=True)
