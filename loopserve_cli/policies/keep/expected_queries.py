"""What queries are to be expected: how a turn's were spread before RoPE, and where the next ones will stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.query_statistics import QueryStatistics


@dataclass(frozen=True, slots=True)
class ExpectedQueries:
    """Statistics of the turn's queries before RoPE; `rope` gives cos and sin [n, R] of int64 positions [n].

    `position` is where the next token will stand.
    """

    statistics: QueryStatistics
    rope: Callable[[Tensor], tuple[Tensor, Tensor]]
    position: int

    def rotation(self, future: int) -> tuple[Tensor, Tensor]:
        """Cos and sin [future, R] of the positions that come next."""
        places = torch.arange(self.position, self.position + future, device=self.statistics.mean.device)
        return self.rope(places)
