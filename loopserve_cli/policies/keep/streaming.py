"""StreamingLLM: the first keys and the most recent ones (arXiv 2309.17453)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow, even_keys


class Streaming(KeepPolicy):
    """`sinks` first keys and `budget - sinks` recent ones, the same for every head."""

    def __init__(self, budget: int, sinks: int) -> None:
        """Keys in all, and how many of them are the first."""
        self.budget = budget
        self.sinks = min(sinks, budget)

    def leaves_out(self, keys: int) -> bool:
        """Whether there are more keys than the budget."""
        return keys > self.budget

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """Positions alone decide."""
        layers = list(windows)
        groups, keys = layers[0].key.shape[:2]
        first = torch.arange(self.budget, dtype=torch.int32, device=layers[0].key.device)
        first[self.sinks :].add_(keys - self.budget)
        return even_keys(first.repeat(len(layers) * groups, 1), len(layers))
