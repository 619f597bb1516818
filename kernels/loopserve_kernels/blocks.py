"""Blocks of positions: the grid on which block plans are drawn, and which blocks of it were chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """n = `new` rows over N = `keys` keys in blocks of `size` positions, counted from the first key.

    R row blocks hold the new rows and C key blocks all keys. The first row block may hold only its last positions, the
    last of either only its first ones; row block r stands at key block `first` + r, its block on the diagonal.
    """

    new: int
    keys: int
    size: int

    @property
    def first(self) -> int:
        """The key block in which the first new row stands."""
        return (self.keys - self.new) // self.size

    @property
    def before(self) -> int:
        """Positions of the first row block that are history."""
        return (self.keys - self.new) % self.size

    @property
    def columns(self) -> int:
        """Key blocks, C."""
        return -(-self.keys // self.size)

    @property
    def rows(self) -> int:
        """Row blocks, R."""
        return self.columns - self.first

    def diagonal(self, device: torch.device) -> Tensor:
        """The key block that every row block stands at, int64 [R]."""
        return torch.arange(self.first, self.columns, device=device)

    def ahead(self, device: torch.device) -> Tensor:
        """How many blocks a row block stands after a key block, int64 [R, C]: 0 on the diagonal, below 0 is unseen."""
        return self.diagonal(device)[:, None] - torch.arange(self.columns, device=device)

    def heights(self, device: torch.device) -> Tensor:
        """New rows in every row block, int64 [R]."""
        begins = (self.diagonal(device) * self.size).clamp_min(self.keys - self.new)
        return ((self.diagonal(device) + 1) * self.size).clamp_max(self.keys) - begins

    def causal(self, chosen: Tensor) -> Tensor:
        """Of chosen blocks, bool [..., R, C], those that some row sees, and the diagonal, which every row needs."""
        ahead = self.ahead(chosen.device)
        return (chosen & (ahead >= 0)) | (ahead == 0)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Chosen blocks of P heads' choices: P is H, G (one choice per key-value head) or 1 (one for all)."""

    grid: BlockGrid
    chosen: Tensor  # [P, R, C] bool, causal, the diagonal always in
    coverage: Tensor  # [P] fp32, share of the sampled rows' attention in these blocks; NaN when it was not measured
