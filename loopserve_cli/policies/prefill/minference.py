"""MInference's vertical-slash heads: a fixed number of lines per head, ranked by the last rows' attention.

Source: MInference 1.0 (arXiv 2407.02490) and its released defaults: the last 64 rows judge, the first 30 columns and
the nearest 100 diagonals are always in. Its offline search, which gives some heads other patterns, is left out: every
head here is a vertical-slash head, which is what its search picks for nearly all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes
from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.lines import line_mass
from loopserve_kernels.ranking import ranked


class MInference:
    """The heaviest `verticals` keys and `slashes` offsets by the attention of the last `window` rows."""

    alpha = None
    dense_rows = 0

    def __init__(
        self,
        verticals: int,
        slashes: int,
        window: int,
        sinks: int,
        local: int,
        min_new: int = 1,
        min_keys: int = 1,
        most_density: float = 1.0,
    ) -> None:
        """Counts of lines, forced ones included, and the gate."""
        self.verticals = verticals
        self.slashes = slashes
        self.window = window
        self.sinks = sinks
        self.local = local
        self.gate = Gate(min_new, min_keys, most_density)
        self.routes = Routes()

    def sampled(self, new: int) -> int:
        """The last rows."""
        return min(self.window, new)

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines:
        """A choice of its own for every query head."""
        new, keys = query.shape[1], key.shape[1]
        rows = torch.arange(max(0, new - self.window), new, device=query.device)
        mass = line_mass(query[:, rows], keys - new + rows, key, scaling)
        mass.vertical[:, : self.sinks] = float("inf")
        mass.slash[:, : self.local] = float("inf")
        vertical = ranked(mass.vertical, min(self.verticals, keys))
        slash = ranked(mass.slash, min(self.slashes, keys))
        return fixed_lines(vertical, slash, keys)
