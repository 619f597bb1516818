"""Routes: which key-value groups of a layer are worth choosing lines for, by what was found before.

A group all of whose heads turned out dense gains nothing: it runs dense, unasked, until the dialogue has grown by half.
What was found lies on a device, and waiting for it in every layer would cost more than it is worth. So it is brought
over while the device works, and looked at once per chunk, when a third of the layers has chosen; by then what the
chunk before found is there as well. Which route is taken never depends on how fast a device was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# A group is asked again once there are so many times the keys at which it was dense.
GROWN = 1.5
# Which part of the layers has chosen when a chunk is looked at.
ASKED = 1 / 3
# Where so many of the asked heads are dense, the chunk's other layers are not asked.
MOST_DENSE = 0.9


class Arrival(Protocol):
    """Flags on their way to the host."""

    def flags(self) -> list[bool]:
        """The flags, once they are there."""


@dataclass(frozen=True, slots=True)
class Here:
    """Flags of a CPU."""

    on_host: Tensor

    def flags(self) -> list[bool]:
        """Nothing to wait for."""
        found: list[bool] = self.on_host.tolist()
        return found


@dataclass(frozen=True, slots=True)
class Coming:
    """Flags of a GPU, copied to pinned memory behind what the device still has to do."""

    on_host: Tensor
    copied: torch.cuda.Event

    def flags(self) -> list[bool]:
        """Waits for the device to have come so far."""
        self.copied.synchronize()
        found: list[bool] = self.on_host.tolist()
        return found


def bring(flags: Tensor) -> Arrival | None:
    """Send flags [P] to the host without waiting; None where there are none to send (the meta device)."""
    if flags.device.type == "meta":
        return None
    if flags.device.type == "cpu":
        return Here(flags)
    on_host = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
    on_host.copy_(flags, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(flags.device))
    return Coming(on_host, copied)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a layer's choice over so many keys said of the groups that were asked."""

    layer: int
    keys: int
    groups: list[int]
    arrival: Arrival


class Routes:
    """What is known of every layer of one dialogue under one policy."""

    def __init__(self, bring: Callable[[Tensor], Arrival | None] = bring) -> None:
        """Nothing known: everything is asked."""
        self._bring = bring
        self._dense_at: dict[tuple[int, int], int] = {}  # keys at which a layer's group was dense
        self._coming: list[_Found] = []
        self._last_layer = -1
        self._looked = False
        self._closed_at = 0

    def asked(self, layer: int, groups: int, keys: int, layers: int | None) -> list[int]:
        """The groups of a layer for which lines are to be chosen now, of so many in all and over so many keys.

        `layers` is how many the model has; without it a chunk is looked at when the next begins.
        """
        if layer <= self._last_layer:
            self._looked = False
        first_asked = 0 if layers is None else int(layers * ASKED)
        self._last_layer = layer
        if not self._looked and layer >= first_asked:
            self._looked = True
            self._look(keys)
        if layer >= first_asked and self._holds(self._closed_at, keys):
            return []
        return [group for group in range(groups) if not self._holds(self._dense_at.get((layer, group), 0), keys)]

    def found(self, layer: int, groups: list[int], keys: int, dense: Tensor) -> None:
        """Note which line heads [P] of the asked groups are dense; nothing waits."""
        arrival = self._bring(dense)
        if arrival is not None:
            self._coming.append(_Found(layer, keys, groups, arrival))
            if dense.device.type == "cpu":
                self._learn()

    def _look(self, keys: int) -> None:
        """Wait for what is on its way; close the chunk over these keys if those asked in it were nearly all dense."""
        flags = [flag for found in self._coming if found.keys == keys for flag in found.arrival.flags()]
        self._learn()
        if flags and sum(flags) >= MOST_DENSE * len(flags):
            self._closed_at = keys

    def _learn(self) -> None:
        for found in self._coming:
            flags = found.arrival.flags()
            each = len(flags) // len(found.groups)
            for place, group in enumerate(found.groups):
                dense = all(flags[place * each : (place + 1) * each])
                self._dense_at[found.layer, group] = found.keys if dense else 0
        self._coming.clear()

    @staticmethod
    def _holds(dense_at: int, keys: int) -> bool:
        """Whether what was found over so many keys holds for these: none were taken back, and not half as many came."""
        return 0 < dense_at <= keys < GROWN * dense_at
