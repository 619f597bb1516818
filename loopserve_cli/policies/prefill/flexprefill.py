"""FlexPrefill: every head looks at its last rows and takes the pattern that fits, with as many blocks as it needs.

Source: FlexPrefill (Lai et al., arXiv 2502.20766). A head whose last rows attend as pooled queries and keys say, by
the root of the Jensen-Shannon divergence, is query-aware: it takes the blocks that hold `gamma` of the pooled attention
of all row blocks together. Any other is vertical-slash: it takes the columns and the diagonals of blocks that hold
`gamma` of the last rows' attention each. All of it is chosen and executed by blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes
from loopserve_kernels.block_mass import last_rows_mass
from loopserve_kernels.blocks import BlockGrid, Blocks
from loopserve_kernels.covering import covering
from loopserve_kernels.divergence import root_divergence
from loopserve_kernels.pooled import block_means, pooled_scores


class FlexPrefill:
    """Query-aware or vertical-slash blocks, chosen anew for every input, layer and head."""

    alpha = None
    dense_rows = 0

    def __init__(
        self,
        gamma: float,
        tau: float,
        min_budget: int,
        block: int,
        min_new: int = 1,
        min_keys: int = 1,
        most_density: float = 1.0,
    ) -> None:
        """Settings as the profile explains them."""
        self.gamma = gamma
        self.tau = tau
        self.block = block
        self.least = -(-min_budget // block)
        # All of the attention leaves nothing to choose.
        self.gate = Gate(min_new, min_keys, most_density, closed=gamma >= 1)
        self.routes = Routes()

    def sampled(self, new: int) -> int:
        """The last rows, as many as a block has."""
        return min(self.block, new)

    def blocks(self, query: Tensor, key: Tensor, scaling: float) -> Blocks:
        """A choice of its own for every query head."""
        grid = BlockGrid(query.shape[1], key.shape[1], self.block)
        mass = last_rows_mass(query, key, scaling, grid)
        means = block_means(key, self.block)
        last = query[:, -self.sampled(grid.new) :].float().mean(1, keepdim=True)
        estimate = pooled_scores(last, means, scaling).softmax(-1)[:, 0]
        aware = root_divergence(estimate, mass.vertical) < self.tau
        chosen = torch.where(
            aware[:, None, None],
            self._query_aware(query, means, scaling, grid),
            self._vertical_slash(mass.vertical, mass.slash, grid),
        )
        chosen = grid.causal(chosen)
        return Blocks(grid, chosen, mass.on(chosen))

    def _query_aware(self, query: Tensor, means: Tensor, scaling: float, grid: BlockGrid) -> Tensor:
        """The blocks [H, R, C] that hold gamma of the pooled attention, over all row blocks."""
        scores = pooled_scores(block_means(query, self.block, grid.before), means, scaling)
        unseen = grid.ahead(query.device) < 0
        weights = scores.masked_fill(unseen, float("-inf")).softmax(-1)
        return covering(weights.flatten(1), self.gamma, self.least * grid.rows).view(scores.shape)

    def _vertical_slash(self, vertical: Tensor, slash: Tensor, grid: BlockGrid) -> Tensor:
        """The blocks [H, R, C] in those columns and on those diagonals that each hold gamma of the mass [H, C]."""
        columns, diagonals = (covering(mass, self.gamma, self.least) for mass in (vertical, slash))
        return columns[:, None] | diagonals[:, grid.ahead(vertical.device).clamp_min(0)]
