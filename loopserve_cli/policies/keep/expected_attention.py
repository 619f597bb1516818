"""Expected attention: what queries to come can be expected to look at, by how the prompt's were spread (Devoto et al.).

Source: kvpress's `ExpectedAttentionPress`, as published with "Expected Attention: KV cache compression by estimating
attention from future queries distribution" (2025). The mean and covariance of the turn's queries before RoPE are turned
to the mean of the positions that come next; a key's score is the attention that such a query can be expected to give
it, times the size of its value.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow, even_keys
from loopserve_kernels.expected_mass import expected_mass
from loopserve_kernels.rotate import turned
from loopserve_kernels.selection import select_keys


class ExpectedAttention(KeepPolicy):
    """Chosen once, after prefill: the first `sinks` keys, and the `budget - sinks` of the highest score."""

    expects = True

    def __init__(self, budget: int, future: int, sinks: int, epsilon: float) -> None:
        """Settings as the profile explains them."""
        self.budget = budget
        self.future = future
        self.sinks = sinks
        self.epsilon = epsilon

    def leaves_out(self, keys: int) -> bool:
        """Whether there are more keys than the budget, and others than the sinks, whose queries say nothing."""
        return keys > max(self.budget, self.sinks)

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """The same number of keys for every head."""
        scores = [self.scores(one) for one in windows]
        chosen = select_keys(torch.cat(scores), self.budget, sinks=min(self.sinks, self.budget), recent=0)
        return even_keys(chosen.index, len(scores))

    def scores(self, one: ScoringWindow) -> Tensor:
        """Scores [G, N]; that of a sink is 0."""
        expected = one.expected
        assert expected is not None and one.value is not None
        cos, sin = (part.mean(0) for part in expected.rotation(self.future))
        mean = turned(expected.statistics.mean, cos, sin)
        covariance = turned(turned(expected.statistics.covariance, cos, sin).transpose(1, 2), cos, sin)
        mass = expected_mass(mean, covariance, one.key[:, self.sinks :], one.scaling)
        size = one.value[:, self.sinks :].float().norm(dim=2)
        return F.pad((mass + self.epsilon) * size, (self.sinks, 0))
