"""XAttention: blocks are scored by their antidiagonals, and every row block takes those that hold a share of that.

Source: XAttention (Xu et al., arXiv 2503.16428). The first key block and the one on the diagonal are always in. Its
search for a threshold of every head, made offline, is not part: all heads have one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes
from loopserve_kernels.antidiagonal import antidiagonal_scores
from loopserve_kernels.blocks import BlockGrid, Blocks
from loopserve_kernels.covering import covering


class XAttention:
    """The fewest blocks of every row block that hold `threshold` of its scores, chosen anew for every input."""

    alpha = None
    dense_rows = 0

    def __init__(
        self,
        threshold: float,
        stride: int,
        block: int,
        min_new: int = 1,
        min_keys: int = 1,
        most_density: float = 1.0,
    ) -> None:
        """Settings as the profile explains them."""
        self.threshold = threshold
        self.stride = stride
        self.block = block
        # All of the attention leaves nothing to choose.
        self.gate = Gate(min_new, min_keys, most_density, closed=threshold >= 1)
        self.routes = Routes()

    def sampled(self, new: int) -> int:
        """As many rows with every key cost what the antidiagonals do."""
        return -(-new // self.stride)

    def blocks(self, query: Tensor, key: Tensor, scaling: float) -> Blocks:
        """A choice of its own for every query head. What it covers is estimated by none of its rows, so not known."""
        grid = BlockGrid(query.shape[1], key.shape[1], self.block)
        scores = antidiagonal_scores(query, key, scaling, grid, self.stride)
        ahead = grid.ahead(query.device)
        forced = ahead == 0
        forced[:, 0] = True
        chosen = grid.causal(covering(scores, self.threshold, forced=forced))
        return Blocks(grid, chosen, torch.full((query.shape[0],), float("nan"), device=query.device))
