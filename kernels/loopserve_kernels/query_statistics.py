"""Mean and covariance of queries, gathered chunk by chunk.

    mean[h] = 1/n sum_i q_hi          covariance[h] = 1/n sum_i (q_hi - mean[h]) (q_hi - mean[h])^T

Chunks are merged by their own means (Chan, Golub and LeVeque, 1979): sums of squares alone would lose what is small
beside the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class QueryStatistics:
    """Of `count` rows per head: mean [H, D] and the summed squares about it [H, D, D], fp32."""

    count: int
    mean: Tensor
    squares: Tensor

    @property
    def covariance(self) -> Tensor:
        """[H, D, D], over all rows: the squares divided by how many they are."""
        return self.squares / self.count

    def merged(self, other: QueryStatistics) -> QueryStatistics:
        """Those of both sets of rows together."""
        total = self.count + other.count
        apart = other.mean - self.mean
        between = apart[:, :, None] * apart[:, None, :] * (self.count * other.count / total)
        mean = self.mean + apart * (other.count / total)
        return QueryStatistics(total, mean, self.squares + other.squares + between)


def query_statistics(query: Tensor) -> QueryStatistics:
    """Those of query [H, n, D], n at least 1."""
    rows = query.float()
    mean = rows.mean(1)
    centred = rows - mean[:, None]
    return QueryStatistics(query.shape[1], mean, torch.bmm(centred.transpose(1, 2), centred))
