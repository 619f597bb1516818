"""Routes: which key-value groups of a layer are worth choosing lines for, by what was found before.

A group all of whose heads turned out dense gains nothing: it runs dense, unasked, until the dialogue has grown by half.
What was found lies on a device, and waiting for it in every layer would cost more than it is worth. So it is brought
over while the device works, and looked at once per chunk, when a third of the layers has chosen; by then what the
chunk before found is there as well. Which route is taken never depends on how fast a device was, nor on turns that
were taken back.
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
        self._chunk: list[bool] | None = None  # what this chunk's heads were found to be; None once it was looked at
        self._closed_at = 0

    def asked(self, layer: int, groups: int, new: int, keys: int, layers: int | None) -> list[int]:
        """The groups of a layer, of so many, for which lines are to be chosen now: for `new` rows over `keys` keys.

        `layers` is how many the model has; without it a chunk is looked at when the next begins.
        """
        if layer <= self._last_layer or self._last_layer < 0:
            self._begin(keys - new)
        first_asked = 0 if layers is None else int(layers * ASKED)
        self._last_layer = layer
        if self._chunk is not None and layer >= first_asked:
            self._look(keys)
        if layer >= first_asked and self._holds(self._closed_at, keys):
            return []
        return [group for group in range(groups) if not self._holds(self._dense_at.get((layer, group), 0), keys)]

    def found(self, layer: int, groups: list[int], keys: int, dense: Tensor) -> None:
        """Note which line heads [P] of the asked groups are dense; nothing waits."""
        arrival = self._bring(dense)
        if arrival is not None:
            self._coming.append(_Found(layer, keys, groups, arrival))
            if isinstance(arrival, Here):
                self._learn(keys)

    def _begin(self, history: int) -> None:
        """A new chunk, after so many keys: what was found over more of them was taken back."""
        self._chunk = []
        self._coming = [found for found in self._coming if found.keys <= history]
        self._dense_at = {place: keys for place, keys in self._dense_at.items() if keys <= history}
        self._closed_at = self._closed_at if self._closed_at <= history else 0

    def _look(self, keys: int) -> None:
        """Wait for what is on its way; close the chunk over these keys if those asked in it were nearly all dense."""
        self._learn(keys)
        flags, self._chunk = self._chunk, None
        if flags and sum(flags) >= MOST_DENSE * len(flags):
            self._closed_at = keys

    def _learn(self, keys: int) -> None:
        for found in self._coming:
            flags = found.arrival.flags()
            if found.keys == keys and self._chunk is not None:
                self._chunk += flags
            each = len(flags) // len(found.groups)
            for place, group in enumerate(found.groups):
                if all(flags[place * each : (place + 1) * each]):
                    self._dense_at[found.layer, group] = found.keys
                else:
                    self._dense_at.pop((found.layer, group), None)
        self._coming.clear()

    @staticmethod
    def _holds(dense_at: int, keys: int) -> bool:
        """Whether what was found over `dense_at` keys, 0 for nothing, still holds for these."""
        return keys < GROWN * dense_at
