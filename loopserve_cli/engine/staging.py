"""Room on the device for two layers of a store that lies in the host's memory: one is read while the next one comes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor


class Staged(Protocol):
    """What staging must know of a layer: its number, its device, and how many rows its host buffers hold."""

    number: int
    device: torch.device
    flushed: int
    keys: Tensor | None
    values: Tensor | None
    streamed: int  # counts the bytes that were brought


class Slot:
    """Room on the device for one layer's keys and values: whose `rows` are in it, and whether `whole` or keys alone."""

    def __init__(self) -> None:
        """Nothing is allocated until the first layer comes."""
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.layer: int | None = None
        self.rows = 0
        self.whole = True
        self.ready: torch.cuda.Event | None = None

    def fits(self, layer: Staged) -> bool:
        """Whether the buffers have the shape of the layer's, which may have grown, and lie on its device."""
        pairs = ((self.keys, layer.keys), (self.values, layer.values))
        return all(
            own is not None and host is not None and (own.shape, own.device) == (host.shape, layer.device)
            for own, host in pairs
        )


class Staging:
    """Two slots, and the stream that fills them."""

    def __init__(self) -> None:
        """Empty slots."""
        self.slots = (Slot(), Slot())
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    @property
    def tensors(self) -> list[Tensor]:
        """Every buffer that is allocated."""
        return [part for slot in self.slots for part in (slot.keys, slot.values) if part is not None]

    def copying(self, device: torch.device) -> AbstractContextManager[Any]:
        """What is copied inside runs beside the computation, after all that was asked of it so far."""
        if device.type != "cuda":
            return nullcontext()
        stream = self._streams.setdefault(device, torch.cuda.Stream(device))
        stream.wait_stream(torch.cuda.current_stream(device))
        return torch.cuda.stream(stream)

    def settle(self, device: torch.device) -> None:
        """Wait until the host's memory holds what was copied there."""
        if device in self._streams:
            self._streams[device].synchronize()

    def order(self, device: torch.device) -> None:
        """What is asked of the device from now on comes after what is being copied."""
        if device in self._streams:
            torch.cuda.current_stream(device).wait_stream(self._streams[device])

    def fetch(self, layer: Staged, whole: bool = True) -> Slot:
        """Begin to bring a layer's host rows, or its keys alone, to the device, unless they are there or will be."""
        slot = self.slots[layer.number % 2]
        there = (slot.layer, slot.rows) == (layer.number, layer.flushed) and (slot.whole or not whole)
        if slot.fits(layer) and there:
            return slot
        assert layer.keys is not None and layer.values is not None
        if not slot.fits(layer):
            for device in self._streams:  # the old ones may have served another
                self.settle(device)
            slot.keys = slot.values = None  # first the old ones go
            slot.keys = torch.empty_like(layer.keys, device=layer.device, pin_memory=False)
            slot.values = torch.empty_like(layer.values, device=layer.device, pin_memory=False)
        keys, values = slot.keys, slot.values
        assert keys is not None and values is not None
        rows = layer.flushed
        with self.copying(layer.device):
            for into, held in ((keys, layer.keys), (values, layer.values))[: 2 if whole else 1]:
                copy_rows(into[:, :, :rows], held[:, :, :rows])
                layer.streamed += held[:, :, :rows].nbytes
            slot.ready = torch.cuda.current_stream().record_event() if layer.device.type == "cuda" else None
        slot.layer, slot.rows, slot.whole = layer.number, rows, whole
        return slot

    def take(self, layer: Staged, whole: bool = True) -> tuple[Tensor, Tensor]:
        """A layer's buffers on the device, once its host rows have come into them; they are the caller's to fill.

        Unless the `whole` is wanted the values' buffer may hold anything.
        """
        slot = self.fetch(layer, whole)
        if slot.ready is not None:
            torch.cuda.current_stream(layer.device).wait_event(slot.ready)
        slot.layer = None
        assert slot.keys is not None and slot.values is not None
        return slot.keys, slot.values

    def forget(self) -> None:
        """What the slots hold is of no use any more."""
        for slot in self.slots:
            slot.layer = None

    def reset(self) -> None:
        """Give the memory back."""
        for slot in self.slots:
            slot.keys = slot.values = slot.layer = None


def copy_rows(target: Tensor, source: Tensor) -> None:
    """Copy rows [1, G, n, D] head by head: what is not contiguous torch copies in steps, and waits for them."""
    for into, rows in zip(target[0], source[0], strict=True):
        into.copy_(rows, non_blocking=True)
