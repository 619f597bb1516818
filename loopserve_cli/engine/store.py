"""The full keys and values of a dialogue: buffers that grow, and never forget.

One layer answers one protocol: update, length, bytes, rewind, reset. Appending writes into room that is
already there; when there is none the buffer grows by half, so a token costs amortised constant time
(transformers' own dynamic cache copies everything for every token).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 1.5
ROUND = 256


class StoreLayer(CacheLayerMixin):
    """Keys and values of one layer in buffers [1, G, capacity, D]; the first `length` rows are valid."""

    is_sliding = False

    def __init__(self) -> None:
        """Nothing is allocated until the first update tells shape, dtype and device."""
        super().__init__()
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.length = 0
        self.wanted = 0

    @property
    def capacity(self) -> int:
        """Rows there is room for; memory that ran out between keys and values leaves the keys with more."""
        return 0 if self.keys is None or self.values is None else min(self.keys.shape[2], self.values.shape[2])

    @property
    def bytes(self) -> int:
        """Bytes allocated for keys and values."""
        if self.keys is None or self.values is None:
            return 0
        return self.keys.nbytes + self.values.nbytes

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate empty buffers of the states' shape, dtype and device."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [1, G, n, D] and return views of everything stored, [1, G, length, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[2]
        if end > self.capacity:
            self._grow(max(end, self.wanted, int(self.capacity * GROWTH)))
        self.keys[:, :, self.length : end].copy_(key_states)
        self.values[:, :, self.length : end].copy_(value_states)
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grow(self, rows: int) -> None:
        """Move the valid rows into buffers of at least `rows`, keys before values to bound the peak."""
        rows = -(-rows // ROUND) * ROUND
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_empty((*old.shape[:2], rows, old.shape[3]))
            new[:, :, : self.length].copy_(old[:, :, : self.length])
            setattr(self, name, new)

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` rows; their room stays."""
        assert length >= 0
        self.length = min(self.length, length)

    def reset(self) -> None:
        """Forget everything and give the memory back."""
        self.keys = self.values = None
        self.is_initialized = False
        self.length = self.wanted = 0

    def get_seq_length(self) -> int:
        """How many tokens are stored."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that `query_length` new rows will see."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def get_max_cache_shape(self) -> int:
        """No maximum, under the name transformers before 5.20 asks for."""
        return -1


class Store(Cache):
    """The layers of one dialogue, as the cache that transformers hands to its models."""

    def __init__(self, layers: int) -> None:
        """An empty store for a model of that many layers."""
        super().__init__(layers=[StoreLayer() for _ in range(layers)])

    @property
    def length(self) -> int:
        """Tokens that every layer holds."""
        return min(layer.length for layer in self.layers)

    @property
    def device_bytes(self) -> int:
        """Bytes of keys and values on accelerators."""
        return sum(layer.bytes for layer in self.layers if layer.is_initialized and layer.device.type != "cpu")

    @property
    def host_bytes(self) -> int:
        """Bytes of keys and values in the host's memory."""
        return sum(layer.bytes for layer in self.layers if layer.is_initialized and layer.device.type == "cpu")

    def reserve(self, length: int) -> None:
        """Announce that `length` tokens will come, so that buffers grow once instead of several times."""
        for layer in self.layers:
            layer.wanted = length

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens, in every layer."""
        for layer in self.layers:
            layer.rewind(length)

    def crop(self, tokens_to_remove: int) -> None:
        """Transformers' name for rewinding: a negative count of tokens to take off the end."""
        assert tokens_to_remove <= 0
        self.rewind(self.length + tokens_to_remove)


def empty_cache(device: torch.device) -> None:
    """Return freed blocks to the driver, where there is one."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
