"""A-shape: the first keys and a local band, the same for every head (the static pattern of MInference's comparison).

Source: StreamingLLM's sinks and window (arXiv 2309.17453) applied to prefill, as in MInference (arXiv 2407.02490).
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes
from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.chosen_lines import Lines


class AShape:
    """Every row sees the first `sinks` keys and its `local` nearest, itself included."""

    alpha = None
    dense_rows = 0

    def __init__(self, sinks: int, local: int, min_new: int = 1, min_keys: int = 1, most_density: float = 1.0) -> None:
        """The two widths in keys, and the gate."""
        self.sinks = sinks
        self.local = local
        self.gate = Gate(min_new, min_keys, most_density)
        self.routes = Routes()

    def sampled(self, new: int) -> int:
        """Nothing is looked at."""
        return 0

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines:
        """One choice for all heads."""
        keys, device = key.shape[1], key.device
        sinks = torch.arange(min(self.sinks, keys), device=device)[None]
        band = torch.arange(min(self.local, keys), device=device)[None]
        return fixed_lines(sinks, band, keys)
