"""How fast prefill could be at most: the engine with attention that costs nothing.

It bounds what any way of leaving attention out can gain, so its time stands beside every gain.
"""

from __future__ import annotations

from torch import Tensor

from loopserve_cli.engine.engine import Engine
from loopserve_cli.policies.prefill import PrefillTurn


class NoAttention(PrefillTurn):
    """Answers every layer with zeros."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Zeros of the output's shape, [1, H, n, D]."""
        self.count_dense(layer, query, key)
        return query.new_zeros(*query.shape[:-1], value.shape[-1])


class FloorEngine(Engine):
    """Prefill without its attention; the answers mean nothing."""

    def new_prefill(self) -> NoAttention:
        """A prefill that computes no attention."""
        return NoAttention(self.policy)
