"""Full attention."""

from __future__ import annotations

from torch import Tensor

from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes


class Dense:
    """Every new row sees every key."""

    dense_rows = 0
    alpha = None

    def __init__(self) -> None:
        """Nothing to set, and nothing to choose: the gate never opens."""
        self.gate = Gate(closed=True)
        self.routes = Routes()

    def sampled(self, new: int) -> int:
        """Nothing is looked at."""
        return 0

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> None:
        """No lines: dense."""
