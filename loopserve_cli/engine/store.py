"""The full keys and values of a dialogue, as the cache that transformers hands to its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from loopserve_cli.engine.coding import Coding
from loopserve_cli.engine.cursor import Cursor
from loopserve_cli.engine.handover import Handover, Witness
from loopserve_cli.engine.rope import Rope
from loopserve_cli.engine.store_layer import StoreLayer


class Store(Cache):
    """The layers of one dialogue.

    A prefill appends with `update` and gets everything back. A decode step stands between `begin_step` and
    `end_step`: `update` then gives back the token alone, and attention writes it where the cursor says, with all else
    that it writes; layers whose attention must be handed everything write and get it here. A `witness` sees what is
    given back.
    """

    def __init__(
        self, layers: int | Sequence[StoreLayer], handover: Handover | None = None, rope: Rope | None = None
    ) -> None:
        """An empty store of so many layers on the device, or of the given ones; the rest is the model's."""
        super().__init__(layers=[StoreLayer() for _ in range(layers)] if isinstance(layers, int) else list(layers))
        self.handover = handover or Handover()
        self.rope = rope
        self.witness: Witness | None = None
        self.cursor = Cursor()
        self.stepping = False
        self.coding = Coding()

    @property
    def length(self) -> int:
        """Keys that every layer holds."""
        return min(layer.length for layer in self.layers)

    @property
    def streamed(self) -> int:
        """Bytes that were ever brought to the devices to be read."""
        return sum(layer.streamed for layer in self.layers)

    @property
    def device_bytes(self) -> int:
        """Bytes of keys and values on accelerators."""
        return sum(part.nbytes for part in self._tensors() if part.device.type != "cpu")

    @property
    def host_bytes(self) -> int:
        """Bytes of keys and values in the host's memory."""
        return sum(part.nbytes for part in self._tensors() if part.device.type == "cpu")

    def figures(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "keys_stored": self.length,
            "kv_store_device_bytes": self.device_bytes,
            "kv_store_host_bytes": self.host_bytes,
            "kv_used_device_bytes": self.used_bytes(host=False),
            "kv_used_host_bytes": self.used_bytes(host=True),
        }

    def used_bytes(self, host: bool) -> int:
        """Bytes of the rows that hold tokens, in the host's memory or on accelerators; room for more is left out."""
        used = [pair for layer in self.layers for pair in layer.in_use if (pair[0].device.type == "cpu") is host]
        return sum(part.nbytes // part.shape[2] * rows for part, rows in used if rows)

    def _tensors(self) -> list[Tensor]:
        return [part for layer in self.layers for part in layer.tensors] + self.coding.tensors

    def reserve(self, length: int) -> None:
        """Announce that `length` tokens will come, so that buffers grow once instead of several times."""
        for layer in self.layers:
            layer.wanted = length - layer.dropped

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As the layer's `update`; within a step one token as it came, or, written here, everything if needed."""
        layer = self.layers[layer_idx]
        if self.stepping:
            if layer_idx not in self.handover.whole:
                return key_states, value_states
            layer.write(key_states, value_states, self.cursor.places[layer_idx].row)
            keys, values = layer.everything(layer.length + 1)
        else:
            keys, values = layer.update(key_states, value_states)
        if layer_idx in self.handover.shared and not layer.resident:
            keys, values = keys.clone(), values.clone()  # the next layers' rows come to lie where these are
        if self.witness is not None:
            self.witness.gave(layer_idx, keys, values)
        return keys, values

    @property
    def has_room(self) -> bool:
        """Whether one more token fits without a buffer growing."""
        return all(layer.length < layer.capacity for layer in self.layers)

    def begin_step(self, slot: int = 0) -> None:
        """Make room for a token and tell the devices where it goes; `slot` is its place in rings of queries."""
        for layer in self.layers:
            layer.make_room(layer.length + 1)
        self.cursor.set(self.layers, slot)
        self.stepping = True

    def end_step(self) -> None:
        """Count the token that every layer has written."""
        for layer in self.layers:
            layer.advance()
        self.stepping = False

    def drop_step(self) -> None:
        """Let a step go uncounted; what it wrote, or will have written, lies behind what is held."""
        self.stepping = False
        self.cursor.forget()

    def rewind(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens, in every layer, and a step that did not end."""
        self.drop_step()
        for layer in self.layers:
            layer.rewind(tokens)

    def reset(self) -> None:
        """Forget everything and give the memory back."""
        self.stepping = False
        self.cursor = Cursor()
        super().reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Transformers' name for rewinding: a negative count of tokens to take off the end."""
        assert tokens_to_remove <= 0
        self.rewind(self.get_seq_length() + tokens_to_remove)


def empty_cache(device: torch.device) -> None:
    """Return freed blocks to the driver, where there is one."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
