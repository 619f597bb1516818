"""What a keep policy answers: which keys of the full store a decode step reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """What one layer is judged by. Positions count from the first token of the dialogue."""

    query: Tensor  # [H, r, D], the newest queries after RoPE, oldest first
    positions: Tensor  # [r] int64
    key: Tensor  # [G, N, D], every key of the dialogue
    scaling: float
    accumulated: Tensor | None = None  # [G, N] fp32, attention of all of the turn's rows, where the policy asked for it


@dataclass(frozen=True, slots=True)
class Keys:
    """Chosen keys of every key-value head, ascending."""

    index: Tensor  # [G, K] int32; entries from count[g] on are padding
    count: Tensor  # [G] int32
    even: bool  # every head has K keys


class KeepPolicy(Protocol):
    """One method of leaving keys out of decoding. Its instances are built from a profile's settings, by keyword."""

    @property
    def window(self) -> int:
        """How many of the newest queries a choice is made from; 0 when it looks at none."""

    @property
    def interval(self) -> int | None:
        """Output tokens between two choices; None chooses once, before the first."""

    @property
    def accumulates(self) -> bool:
        """Whether the attention of all of the turn's rows must be summed up during prefill."""

    @property
    def first_full(self) -> bool:
        """Whether the first interval reads everything, so that the first choice is made from outputs."""

    def select(self, seen: Seen) -> Keys | None:
        """The keys to read from now on; None is everything."""
