"""Where a decode step writes and how much it reads, as tensors on the device.

A step that was captured as a CUDA graph has every number of the host baked in. What changes from token to token
stands here instead: the step reads it from memory, and leaves it as the next one needs it. The host counts along, and
sets the numbers only where they are not those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from loopserve_cli.engine.store_layer import StoreLayer


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
        self._told: list[list[int]] | None = None  # the numbers that the devices hold, once all they were asked is done

    def set(self, layers: Sequence[StoreLayer], slot: int) -> None:
        """One copy each to every device that does not hold these numbers; layers hold something already."""
        if not self.places:
            self._allocate(layers)
        wanted = [[layer.next_row for layer in layers], [layer.length for layer in layers], [slot] * len(layers)]
        if wanted == self._told:
            return
        numbers = torch.tensor(wanted)
        lengths = numbers[1, :, None] + 1
        for device, own in self._numbers.items():
            own.copy_(numbers)
            self._lengths[device].copy_(lengths)
        self._told = wanted

    def advance(self, slots: int) -> None:
        """On the devices: the next token's numbers, in rings of so many slots. It belongs to the step's pass."""
        for device, own in self._numbers.items():
            own.add_(1)
            self._lengths[device].add_(1)
            own[2].remainder_(max(slots, 1))

    def count(self, slots: int) -> None:
        """On the host: a pass was asked for that ends in `advance`."""
        assert self._told is not None
        rows, held, slot = self._told
        self._told = [[n + 1 for n in rows], [n + 1 for n in held], [(n + 1) % max(slots, 1) for n in slot]]

    def forget(self) -> None:
        """A pass did not end, or is of no use: what the devices hold is not known."""
        self._told = None

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
