"""LoopServe's first phase: the fewest lines per head that cover a share alpha of the attention of sampled rows.

Source: LoopServe (arXiv 2507.13681). Coverage is exact: a cell on two lines counts once.
"""

from __future__ import annotations

from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes
from loopserve_kernels.attention_shape import has_tall_blocks
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.device import on_gpu
from loopserve_kernels.entries import causal_entries
from loopserve_kernels.rows import sample_size
from loopserve_kernels.rules import Rules
from loopserve_kernels.sample import Sample, make_sample
from loopserve_kernels.vertical_slash import block_shape


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
        self.routes = Routes()
        self._sample: Sample | None = None

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines:
        """The choice for the sampled rows of these new ones."""
        heads, new, keys = query.shape[0], query.shape[1], key.shape[1]
        sample = self._sample
        if sample is None or (sample.new, sample.keys, sample.rows.device) != (new, keys, query.device):
            sample = make_sample(new, keys, self.sampled(new), heads, query.device, sample)
            self._sample = sample
        wide = on_gpu(query) and has_tall_blocks(*block_shape(query.shape[2], query.dtype, query.device), query.device)
        # Heads that share their lines and keys run two in a block, which reads each key once for both at no such price.
        wide = wide and not (self.share == "group" and (heads // key.shape[0]) % 2 == 0)
        # Dense attention has so many columns per row, and tiles half a block more, on both sides of the diagonal.
        most = causal_entries(new, keys) / new + rows_per_block
        rules = Rules(
            self.alpha, self.candidates, self.sinks, self.local, self.objective, rows_per_block, wide, most
        )  # fmt: skip
        return sample.lines(query, key, scaling, self.share, rules)

    def sampled(self, new: int) -> int:
        """How many of so many new rows are looked at."""
        return min(self.most_rows, sample_size(new))
