"""The newest queries of one layer, from which a keep policy judges keys."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.step_place import RingPlace


class Ring:
    """The newest `size` queries [H, size, D] and their positions, in no order; the first `count` slots are used.

    The buffers stay where they are, so that a captured step can write to them.
    """

    def __init__(self, size: int) -> None:
        """Nothing is allocated until the first query."""
        self.size = size
        self.queries: Tensor | None = None
        self.positions: Tensor | None = None
        self.count = 0
        self.next = 0

    def clear(self) -> None:
        """Forget all queries; the buffers stay."""
        self.count = self.next = 0

    def push(self, query: Tensor, position: int) -> None:
        """Add query [H, n, D] whose last row stands at `position`, over the oldest ones."""
        rows = min(query.shape[1], self.size)
        if self.queries is None or self.positions is None:
            self.queries = query.new_empty(query.shape[0], self.size, query.shape[2])
            self.positions = torch.zeros(self.size, dtype=torch.int64, device=query.device)
        slots = (self.next + torch.arange(rows, device=query.device)) % self.size
        self.queries[:, slots] = query[:, -rows:]
        self.positions[slots] = torch.arange(position - rows + 1, position + 1, device=query.device)
        self.advance(rows)

    def copy(self) -> Ring:
        """The same queries in buffers of their own."""
        made = Ring(self.size)
        made.queries = None if self.queries is None else self.queries.clone()
        made.positions = None if self.positions is None else self.positions.clone()
        made.count, made.next = self.count, self.next
        return made

    def place(self, slot: Tensor, position: Tensor) -> RingPlace:
        """Where a step's kernel puts one query, both int64 [1] on the device; the host counts it with `advance`."""
        assert self.queries is not None and self.positions is not None
        return RingPlace(self.queries, self.positions, slot, position)

    def advance(self, rows: int = 1) -> None:
        """Count what was written."""
        self.next = (self.next + rows) % self.size
        self.count = min(self.size, self.count + rows)

    def rewind(self, length: int) -> None:
        """Forget the queries that stand at `length` and after; waits for the device."""
        if not self.count:
            return
        queries, positions = self.newest()
        kept = (positions < length).nonzero()[:, 0]
        self.count = len(kept)
        self.next = self.count % self.size
        queries[:, : self.count], positions[: self.count] = queries[:, kept], positions[kept]

    def newest(self) -> tuple[Tensor, Tensor]:
        """Queries [H, count, D] and positions int64 [count]."""
        assert self.queries is not None and self.positions is not None
        return self.queries[:, : self.count], self.positions[: self.count]
