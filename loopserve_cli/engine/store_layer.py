"""One layer's keys and values: buffers that grow, and never forget.

A layer answers one protocol, whichever tier keeps it: update, write, everything, rows, bytes, rewind, reset.
Appending writes into room that is already there; when there is none the buffer grows by half, so a token
costs amortised constant time (transformers' own dynamic cache copies everything for every token).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from loopserve_kernels.key_codes import KeyCodes
from loopserve_kernels.page_bounds import PageBounds
from loopserve_kernels.step_place import StorePlace

GROWTH = 1.5
ROUND = 256


class StoreLayer(CacheLayerMixin):
    """Keys and values of one layer in buffers [1, G, capacity, D]; the first `length` rows are valid.

    `dropped` counts tokens that were read and are held no more (tier evict): length + dropped tokens are known.
    """

    is_sliding = False

    def __init__(self) -> None:
        """Nothing is allocated until the first update tells shape, dtype and device."""
        super().__init__()
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.length = 0
        self.dropped = 0
        self.wanted = 0
        self.moves = 0  # how often a buffer came to lie elsewhere
        self.streamed = 0  # bytes that were brought to the device to be read
        self.codes: KeyCodes | None = None  # of the keys, where a choice asked for them
        self.bounds: PageBounds | None = None  # of pages of the keys, likewise

    @property
    def capacity(self) -> int:
        """Rows there is room for; memory that ran out between keys and values leaves the keys with more."""
        return 0 if self.keys is None or self.values is None else min(self.keys.shape[2], self.values.shape[2])

    @property
    def tensors(self) -> list[Tensor]:
        """Every buffer this layer has allocated, wherever it lies."""
        return [part for part in (self.keys, self.values) if part is not None] + self.judged_by

    @property
    def judged_by(self) -> list[Tensor]:
        """What is held beside the keys so that choices can be made by it."""
        return [part for made in (self.codes, self.bounds) if made is not None for part in made.tensors]

    @property
    def bytes(self) -> int:
        """Bytes allocated for keys, what they are judged by, and values."""
        return sum(part.nbytes for part in self.tensors)

    @property
    def in_use(self) -> list[tuple[Tensor, int]]:
        """The buffers [1, G, C, D] that hold tokens, each with how many of its rows do."""
        return [(part, self.length) for part in (self.keys, self.values) if part is not None]

    @property
    def groups(self) -> int:
        """Key-value heads."""
        assert self.keys is not None
        return self.keys.shape[1]

    @property
    def next_row(self) -> int:
        """Where `write` must put the next token."""
        return self.length

    @property
    def resident(self) -> bool:
        """Whether all of it lies on the device, at addresses that only growth changes."""
        return True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate empty buffers of the states' shape, dtype and device."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = self._buffer(key_states, 0), self._buffer(value_states, 0)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [1, G, n, D] and return views of everything stored, [1, G, length, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[2]
        self.make_room(end)
        self.keys[:, :, self.length : end].copy_(key_states)
        self.values[:, :, self.length : end].copy_(value_states)
        self.length = end
        return self.everything(end)

    def write(self, key_states: Tensor, value_states: Tensor, row: Tensor) -> None:
        """Put one token's [1, G, 1, D] at `row`, int64 [1] on the device; the host counts it with `advance`."""
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(2, row, key_states)
        self.values.index_copy_(2, row, value_states)

    def place(self, row: Tensor) -> StorePlace:
        """Where a step's kernel writes a token: buffers on the device, and the `row` in them."""
        assert self.keys is not None and self.values is not None
        return StorePlace(self.keys[0], self.values[0], row)

    def advance(self) -> None:
        """Count the token that was written."""
        self.length += 1

    def everything(self, rows: int) -> tuple[Tensor, Tensor]:
        """The first `rows` keys and values, [1, G, rows, D], on the device."""
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, :rows], self.values[:, :, :rows]

    def rows(self) -> tuple[Tensor, Tensor]:
        """All valid keys and values, [1, G, length, D], where they lie."""
        return self.everything(self.length)

    def all_keys(self) -> Tensor:
        """All valid keys, [1, G, length, D], on the device."""
        return self.everything(self.length)[0]

    def keys_from(self, first: int) -> Tensor:
        """The keys from row `first` on, [G, n, D], on the device."""
        return self.rows()[0][0, :, first:].to(self.device)

    def page_bounds(self, page: int) -> PageBounds:
        """The bounds of pages of so many keys, with room for as many as the keys have, as far as they are known."""
        assert self.keys is not None
        if self.bounds is None or self.bounds.page != page:
            self.bounds = PageBounds(page)
        like = self.keys[0, :, :0].to(self.device)
        self.moves += self.bounds.make_room(max(1, self.capacity // page), like)
        return self.bounds

    def sources(self, rows: int) -> tuple[Tensor, Tensor]:
        """All valid keys and values, [1, G, length, D], where the device can gather so many rows of them."""
        return self.everything(self.length)

    def buffers(self) -> tuple[Tensor, Tensor]:
        """Keys and values [1, G, C, D] on the device, a step's own token in them; what follows it may be anything."""
        return self.everything(self.capacity)

    def make_room(self, rows: int) -> None:
        """Buffers of at least `rows`."""
        if rows > self.capacity:
            self._grow(max(rows, self.wanted, int(self.capacity * GROWTH)))

    def _grow(self, rows: int) -> None:
        """Move the valid rows into buffers of at least `rows`, keys before values to bound the peak."""
        rows = -(-rows // ROUND) * ROUND
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = self._buffer(old, rows)
            new[:, :, : self._filled].copy_(old[:, :, : self._filled])
            setattr(self, name, new)
            self.moves += 1

    @property
    def _filled(self) -> int:
        """How many rows of the buffers are valid."""
        return self.length

    def _buffer(self, like: Tensor, rows: int) -> Tensor:
        """Room for `rows` rows of a tensor [1, G, n, D]."""
        return like.new_empty((*like.shape[:2], rows, like.shape[3]))

    def rows_at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the rows of index [G, K], keys and values [1, G, K, D]."""
        assert self.keys is not None and self.values is not None
        place = index.long()[None, :, :, None]
        keys, values = (part.gather(2, place.expand(1, -1, -1, part.shape[3])) for part in (self.keys, self.values))
        return keys, values

    def hold_instead(self, start: int, keys: Tensor, values: Tensor) -> None:
        """Hold keys and values [1, G, K, D] in place of all rows from `start` on, of which they were copied."""
        assert self.keys is not None and self.values is not None
        kept = keys.shape[2]
        self.keys[:, :, start : start + kept] = keys
        self.values[:, :, start : start + kept] = values
        self._forget_judged(start)
        self.dropped += self.length - start - kept
        self.length = start + kept

    def rewind(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens; their room stays."""
        assert tokens >= 0
        self.length = max(0, min(self.length, tokens - self.dropped))
        self._forget_judged(self.length)

    def _forget_judged(self, start: int) -> None:
        """Codes and bounds of keys from row `start` on are those of others."""
        for made in (self.codes, self.bounds):
            if made is not None:
                made.rewind(start)

    def reset(self) -> None:
        """Forget everything and give the memory back."""
        self.keys = self.values = self.codes = self.bounds = None
        self.is_initialized = False
        self.length = self.wanted = self.dropped = 0

    def get_seq_length(self) -> int:
        """How many tokens came before, held or not."""
        return self.length + self.dropped

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that `query_length` new rows will see."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def get_max_cache_shape(self) -> int:
        """No maximum, under the name transformers before 5.20 asks for."""
        return -1
