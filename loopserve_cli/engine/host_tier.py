"""Tier host: keys and values stay in the host's memory, and come to the device layer by layer.

    host      [1, G, capacity, D] per layer, pinned where there is a GPU; the first `flushed` rows are there
    tail      [1, G, TAIL, D] per layer on the device, the newest tokens, which decode steps write
    staging   two layers' keys and values on the device, shared: one is read while the next one's are copied

Device bytes are therefore 2 layers' keys and values and L tails, however many layers L there are:

    item size x (key size + value size) x G x (2 x capacity + L x TAIL)

A choice of keys brings keys alone, and gathers what was chosen from where it lies. These are the tensors' bytes, and
pinned memory takes no more (`pinned.py`). Copies run on a stream of their own. On a machine without a GPU the same code
runs in plain memory, one copy after the other, and all of it is counted as host memory, where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from loopserve_cli.engine.pinned import pinned_empty
from loopserve_cli.engine.staging import Staging, copy_rows
from loopserve_cli.engine.store_layer import GROWTH, StoreLayer
from loopserve_kernels.step_place import StorePlace

TAIL = 64


class HostLayer(StoreLayer):
    """A layer of which the host holds all but the newest tokens; `keys` and `values` are the host's buffers."""

    def __init__(self, number: int, staging: Staging, siblings: Sequence[HostLayer]) -> None:
        """Layer `number` of `siblings`, which share the staging."""
        super().__init__()
        self.number = number
        self.staging = staging
        self.siblings = siblings
        self.flushed = 0
        self.tail_keys: Tensor | None = None
        self.tail_values: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """The host's buffers and the tail; the staging counts with the first layer."""
        own = [part for part in (self.keys, self.values, self.tail_keys, self.tail_values) if part is not None]
        own += self.judged_by
        return own + self.staging.tensors if self.number == 0 else own

    @property
    def in_use(self) -> list[tuple[Tensor, int]]:
        """The host's rows and the tail's; the staging holds copies."""
        buffers = [(self.keys, self.flushed), (self.values, self.flushed)]
        buffers += [(self.tail_keys, self.next_row), (self.tail_values, self.next_row)]
        return [(part, rows) for part, rows in buffers if part is not None]

    @property
    def next_row(self) -> int:
        """Where in the tail the next token goes."""
        return self.length - self.flushed

    @property
    def resident(self) -> bool:
        """Only the tail is on the device."""
        return False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Empty host buffers, and the tail."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = self._buffer(key_states, 0), self._buffer(value_states, 0)
        self.tail_keys, self.tail_values = (
            part.new_empty((*part.shape[:2], TAIL, part.shape[3])) for part in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [1, G, n, D]; everything stored, [1, G, length, D], in the staging, while the next layer's comes."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        self._flush()
        first, end = self.length, self.length + key_states.shape[2]
        if end > self.capacity:
            self._grow(max(end, self.wanted, int(self.capacity * GROWTH)))
        keys, values = self.staging.take(self)
        keys[:, :, first:end].copy_(key_states)
        values[:, :, first:end].copy_(value_states)
        with self.staging.copying(self.device):
            copy_rows(self.keys[:, :, first:end], keys[:, :, first:end])
            copy_rows(self.values[:, :, first:end], values[:, :, first:end])
        self.length = self.flushed = end
        if self.number + 1 < len(self.siblings):
            self.siblings[self.number + 1]._flush()  # else its tail would have to come after it, and all once more
        self._announce()
        return keys[:, :, :end], values[:, :, :end]

    def write(self, key_states: Tensor, value_states: Tensor, row: Tensor) -> None:
        """Put one token's [1, G, 1, D] into the tail."""
        assert self.tail_keys is not None and self.tail_values is not None
        self.tail_keys.index_copy_(2, row, key_states)
        self.tail_values.index_copy_(2, row, value_states)

    def place(self, row: Tensor) -> StorePlace:
        """The tail."""
        assert self.tail_keys is not None and self.tail_values is not None
        return StorePlace(self.tail_keys[0], self.tail_values[0], row)

    def everything(self, rows: int) -> tuple[Tensor, Tensor]:
        """The first `rows` keys and values, [1, G, rows, D], in the staging, while the next layer's come."""
        keys, values = self.buffers()
        return keys[:, :, :rows], values[:, :, :rows]

    def rows(self) -> tuple[Tensor, Tensor]:
        """All keys and values, [1, G, length, D], in the host's memory, the tail's too."""
        self._flush()
        self.staging.settle(self.device)
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def buffers(self) -> tuple[Tensor, Tensor]:
        """The staging, the host's rows and the whole tail in it."""
        assert self.tail_keys is not None and self.tail_values is not None
        keys, values = self.staging.take(self)
        end = min(self.flushed + TAIL, self.capacity)
        keys[:, :, self.flushed : end].copy_(self.tail_keys[:, :, : end - self.flushed])
        values[:, :, self.flushed : end].copy_(self.tail_values[:, :, : end - self.flushed])
        self._announce()
        return keys[:, :, : self.capacity], values[:, :, : self.capacity]

    def all_keys(self) -> Tensor:
        """All valid keys, [1, G, length, D], in the staging, while the next layer's come; no value is brought."""
        assert self.tail_keys is not None
        keys, _ = self.staging.take(self, whole=False)
        keys[:, :, self.flushed : self.length].copy_(self.tail_keys[:, :, : self.next_row])
        self._announce(whole=False)
        return keys[:, :, : self.length]

    def sources(self, rows: int) -> tuple[Tensor, Tensor]:
        """All valid keys and values, [1, G, length, D], in the host's memory, to gather so many rows from."""
        self._flush()
        self.staging.order(self.device)
        assert self.keys is not None and self.values is not None
        self.streamed += rows * (self.keys[0, 0, :1].nbytes + self.values[0, 0, :1].nbytes)
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def make_room(self, rows: int) -> None:
        """A tail with a free row, and host buffers that can take it."""
        if self.next_row == TAIL:
            self._flush()
        super().make_room(rows)

    def _announce(self, whole: bool = True) -> None:
        """Begin to bring the next layer, or its keys alone, which is asked for next."""
        if self.number + 1 < len(self.siblings):
            following = self.siblings[self.number + 1]
            if following.flushed:
                self.staging.fetch(following, whole)

    def _flush(self) -> None:
        """Move the tail to the host."""
        count = self.length - self.flushed
        if not count:
            return
        super().make_room(self.length)
        assert self.keys is not None and self.values is not None
        assert self.tail_keys is not None and self.tail_values is not None
        with self.staging.copying(self.device):
            copy_rows(self.keys[:, :, self.flushed : self.length], self.tail_keys[:, :, :count])
            copy_rows(self.values[:, :, self.flushed : self.length], self.tail_values[:, :, :count])
        # The next token overwrites the tail.
        self.staging.order(self.device)
        self.flushed = self.length

    def _grow(self, rows: int) -> None:
        """As on the device, once the host holds what was copied there."""
        self.staging.settle(self.device)
        super()._grow(rows)

    @property
    def _filled(self) -> int:
        """The host's rows."""
        return self.flushed

    def _buffer(self, like: Tensor, rows: int) -> Tensor:
        """Room in the host's memory, pinned if the device is a GPU."""
        shape = (*like.shape[:2], rows, like.shape[3])
        if self.device.type == "cuda":
            return pinned_empty(shape, like.dtype, self.device)
        return torch.empty(shape, dtype=like.dtype, device="cpu")

    def rewind(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens."""
        super().rewind(tokens)
        self.flushed = min(self.flushed, self.length)
        self.staging.forget()

    def reset(self) -> None:
        """Forget everything and give the memory back."""
        if self.is_initialized:
            self.staging.settle(self.device)
        self.staging.reset()
        self.tail_keys = self.tail_values = None
        self.flushed = 0
        super().reset()


def host_layers(count: int) -> list[StoreLayer]:
    """So many layers with one staging."""
    staging = Staging()
    layers: list[HostLayer] = []
    layers += (HostLayer(number, staging, layers) for number in range(count))
    return list(layers)
