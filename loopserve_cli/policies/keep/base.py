"""What a keep policy answers: which keys of the full store a decode step reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_cli.policies.keep.expected_queries import ExpectedQueries
from loopserve_kernels.key_codes import KeyCodes


@dataclass(frozen=True, slots=True)
class ScoringWindow:
    """The newest queries, and what else one layer's keys are scored by. Positions count from the first token."""

    query: Tensor  # [H, r, D], the newest queries after RoPE, oldest first
    positions: Tensor  # [r] int64
    key: Tensor  # [G, N, D], every key of the dialogue
    scaling: float
    accumulated: Tensor | None = None  # [G, N] fp32, attention of all of the turn's rows, where the policy asked for it
    codes: KeyCodes | None = None  # of all keys, where judging by them is faster
    expected: ExpectedQueries | None = None  # where the policy asked for it
    value: Tensor | None = None  # [G, N, D], likewise


@dataclass(frozen=True, slots=True)
class Keys:
    """Chosen keys of every key-value head, ascending."""

    index: Tensor  # [G, K] int32; entries from count[g] on are padding
    count: Tensor  # [G] int32
    even: bool  # every head has K keys
    total: int  # the sum of the counts


class KeepPolicy(ABC):
    """One method of leaving keys out of decoding. Its instances are built from a profile's settings, by keyword.

    `window` is how many of the newest queries a choice is made from; a policy with a window of 0 looks at no key
    either, and is given keys that have a shape alone. `interval` is output tokens between two choices; None chooses
    once, before the first. `accumulates` is whether the attention of all of the turn's rows must be summed up during
    prefill, `expects` whether it judges by how the turn's queries are spread before RoPE, and by all keys and values.
    `sinks` are first keys that are always read, `first_full` is whether the first interval reads everything, so that
    the first choice is made from outputs.
    """

    window: int = 0
    interval: int | None = None
    accumulates: bool = False
    expects: bool = False
    sinks: int = 0
    first_full: bool = False

    @abstractmethod
    def leaves_out(self, keys: int) -> bool:
        """Whether a choice among so many keys leaves any of them out."""

    @abstractmethod
    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """The keys to read from now on, of layers alike in device, heads and number of keys, all at once.

        The layers are looked at one after the other, each once: its keys may be brought to the device for that look.
        """

    def select(self, window: ScoringWindow) -> Keys | None:
        """The keys of one layer to read from now on; None is everything."""
        return self.choose([window])[0] if self.leaves_out(window.key.shape[1]) else None


def even_keys(index: Tensor, layers: int) -> list[Keys]:
    """Chosen keys of `layers` layers from index [layers x G, K], where every head has K of them."""
    by_layer = index.unflatten(0, (layers, -1))
    count = torch.full(by_layer.shape[1:2], index.shape[1], dtype=torch.int32, device=index.device)
    return [Keys(own, count, even=True, total=own.numel()) for own in by_layer]
