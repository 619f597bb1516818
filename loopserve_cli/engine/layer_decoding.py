"""One layer's part in a turn's decoding: what prefill showed of it, and what its steps read and write."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.engine.ring import Ring
from loopserve_cli.engine.working_set import WorkingSet
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.query_statistics import QueryStatistics, query_statistics
from loopserve_kernels.rotate import turned_back

ACCUMULATED_ROWS = 32


@dataclass(slots=True)
class LayerBuffers:
    """What one layer's decoding writes to. It outlives the turn so that addresses stay; its content does not."""

    ring: Ring
    working: WorkingSet = field(default_factory=WorkingSet)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a turn's prefill showed of one layer, copied: later steps do not change it."""

    ring: Ring
    scaling: float
    accumulated: Tensor | None
    statistics: QueryStatistics | None


@dataclass(slots=True)
class LayerDecoding:
    """One layer in this turn; without a choice (`chosen`) it reads everything.

    `accumulated` [G, N] is the attention of the prefill's rows by key, `statistics` how its queries are spread before
    RoPE, each where the policy asked for it.
    """

    buffers: LayerBuffers
    scaling: float
    chosen: bool = False
    accumulated: Tensor | None = None
    statistics: QueryStatistics | None = None

    @classmethod
    def recalled(cls, observation: Observation) -> LayerDecoding:
        """As when it was noted, in buffers of its own."""
        buffers, seen = LayerBuffers(observation.ring.copy()), observation
        return cls(buffers, seen.scaling, accumulated=seen.accumulated, statistics=seen.statistics)

    def observation(self) -> Observation:
        """What prefill showed so far."""
        return Observation(self.buffers.ring.copy(), self.scaling, self.accumulated, self.statistics)

    def rewind(self, length: int) -> None:
        """Forget what was seen of tokens after the first `length`."""
        self.buffers.ring.rewind(length)
        self.accumulated = self.statistics = None


def accumulate(so_far: Tensor | None, query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Attention of all rows summed by key, mean over the group: query [H, n, D] (the newest), key [G, N, D]; [G, N]."""
    new, keys = query.shape[1], key.shape[1]
    total = key.new_zeros(key.shape[0], keys, dtype=torch.float32) if so_far is None else so_far
    total = F.pad(total, (0, keys - total.shape[1]))
    for first in range(0, new, ACCUMULATED_ROWS):
        rows = torch.arange(first, min(first + ACCUMULATED_ROWS, new), device=query.device)
        total += key_mass(query[:, rows], keys - new + rows, key, scaling, "mean") * len(rows)
    return total


def spread(so_far: QueryStatistics | None, query: Tensor, rope: tuple[Tensor, Tensor]) -> QueryStatistics:
    """How rows are spread before RoPE: query [H, n, D] after it, and the cos and sin [n, R] that turned them."""
    found = query_statistics(turned_back(query.float(), *rope))
    return found if so_far is None else so_far.merged(found)
