"""Where a decode step writes and how much it reads, as tensors on the device.

A step that was captured as a CUDA graph has every number of the host baked in. What changes from token to token
stands here instead: the host sets it before each step, and the step reads it from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from loopserve_cli.engine.store import StoreLayer


class Place(NamedTuple):
    """One layer's numbers, views of the cursor's tensors."""

    row: Tensor  # int64 [1], where the store's layer writes the token
    position: Tensor  # int64 [1], the token's place among the layer's keys
    slot: Tensor  # int64 [1], its place in the ring of queries
    lengths: Tensor  # int32 [G], keys per head with the token itself


class Cursor:
    """The numbers of all layers, on every device that holds some."""

    def __init__(self) -> None:
        """Nothing is allocated before the first step."""
        self.places: list[Place] = []
        self._numbers: dict[torch.device, Tensor] = {}  # int64 [3, L]: rows, positions, slots
        self._lengths: dict[torch.device, Tensor] = {}  # int32 [L, G]

    def set(self, layers: Sequence[StoreLayer], slot: int) -> None:
        """One copy each to every device; layers hold something already."""
        if not self.places:
            self._allocate(layers)
        held = [layer.length for layer in layers]
        numbers = torch.tensor([[layer.next_row for layer in layers], held, [slot] * len(layers)])
        lengths = numbers[1, :, None] + 1
        for device, own in self._numbers.items():
            own.copy_(numbers)
            self._lengths[device].copy_(lengths)

    def _allocate(self, layers: Sequence[StoreLayer]) -> None:
        count = len(layers)
        groups = [layer.groups for layer in layers]
        for device in {layer.device for layer in layers}:
            self._numbers[device] = torch.zeros(3, count, dtype=torch.int64, device=device)
            self._lengths[device] = torch.zeros(count, max(groups), dtype=torch.int32, device=device)
        for number, layer in enumerate(layers):
            own = self._numbers[layer.device]
            row, position, slot = own[:, number : number + 1]
            lengths = self._lengths[layer.device][number, : groups[number]]
            self.places.append(Place(row, position, slot, lengths))
