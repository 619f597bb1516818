"""The places that a decode step writes one token to: its row of the store, of the ring, of the working set."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class StorePlace(NamedTuple):
    """Keys and values [G, C, D], and int64 [1] on the device: the row that the token goes to."""

    keys: Tensor
    values: Tensor
    row: Tensor


class RingPlace(NamedTuple):
    """Queries [H, r, D], their positions int64 [r]; int64 [1] on the device: the slot, and where the token stands."""

    queries: Tensor
    positions: Tensor
    slot: Tensor
    position: Tensor


class WorkingPlace(NamedTuple):
    """Keys and values [G, C, D] with room for one more, and int32 [G] on the device: how many each head holds."""

    keys: Tensor
    values: Tensor
    lengths: Tensor
