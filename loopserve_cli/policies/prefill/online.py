"""LoopServe's first phase: the fewest lines per head that cover a share alpha of the attention of sampled rows.

Source: LoopServe (arXiv 2507.13681). Coverage is exact: a cell on two lines counts once.
"""

from __future__ import annotations

from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_kernels.choice import Lines, Rules, choose_lines
from loopserve_kernels.lines import line_mass
from loopserve_kernels.rows import sample_rows, sample_size


class Online:
    """Chosen anew for every input, layer and head, from the input itself."""

    def __init__(
        self,
        alpha: float,
        sample_rows: int,
        candidates: int,
        sinks: int,
        local: int,
        share: str,
        objective: str,
        dense_rows: int,
        min_new: int,
        min_keys: int,
        most_density: float,
    ) -> None:
        """Settings as the profile explains them."""
        self.alpha = alpha
        self.most_rows = sample_rows
        self.candidates = candidates
        self.sinks = sinks
        self.local = local
        self.share = share
        self.objective = objective
        self.dense_rows = dense_rows
        # At alpha 1 there is nothing to choose.
        self.gate = Gate(min_new, min_keys, most_density, closed=alpha >= 1)

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines:
        """The choice for the sampled rows of these new ones."""
        new, keys = query.shape[1], key.shape[1]
        rows = sample_rows(new, min(self.most_rows, sample_size(new))).to(query.device)
        rules = Rules(self.alpha, self.candidates, self.sinks, self.local, self.objective, rows_per_block)
        sampled, positions = query[:, rows], keys - new + rows
        mass = line_mass(sampled, positions, key, scaling, self.share)
        return choose_lines(mass, sampled, positions, key, scaling, rules)
