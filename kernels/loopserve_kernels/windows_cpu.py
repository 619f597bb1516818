"""What row blocks see of a run of deltas on a CPU: one overlapping view of the keys, for one batched product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Columns are a multiple of this: products of odd widths are a third slower.
ALIGNED = 16


@dataclass(frozen=True, slots=True)
class Stored:
    """A group's keys, scaled, and values, each [pad + N, D]: `pad` rows of zeros stand before key 0."""

    key: Tensor
    value: Tensor
    pad: int

    @classmethod
    def of(cls, key: Tensor, value: Tensor, scaling: float, pad: int) -> Stored:
        """Copies of key and value [N, D], in fp32 at least."""
        precision = torch.promote_types(key.dtype, torch.float32)
        copies = [part.new_empty(pad + part.shape[0], part.shape[1], dtype=precision) for part in (key, value)]
        for copy, part in zip(copies, (key, value), strict=True):
            copy[:pad].zero_()
            copy[pad:].copy_(part)
        copies[0][pad:].mul_(scaling)
        return cls(copies[0], copies[1], pad)

    def windows(self, part: Tensor, low: int, length: int, count: int, step: int) -> Tensor:
        """View keys or values as [count, length, D], overlapping windows from key `low` on, `step` keys apart."""
        stride = part.stride(0)
        return part.as_strided((count, length, part.shape[1]), (step * stride, stride, 1), (self.pad + low) * stride)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring deltas that every row block executes; the last of `length` columns is delta `start`.

    `bias` [M, length] hides what a row of a block does not see: keys ahead of it, and columns that only round up.
    """

    start: int
    length: int
    bias: Tensor

    @classmethod
    def of(cls, start: int, length: int, block: int) -> Run:
        """Deltas [start, start + length) for blocks of M = `block` rows."""
        columns = length + -length % ALIGNED
        key = torch.arange(columns) - (start + columns - 1)  # 0 is that of the block's first row
        hidden = (key < 1 - start - length) | (key > torch.arange(block)[:, None])
        return cls(start, columns, torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")))

    def window(self, position: int, count: int, rows: int, block: int) -> Window:
        """What `count` row blocks see of it, each of `rows` rows; the first row stands at `position`."""
        low = position - (self.start + self.length - 1)
        # A short last block has no keys beyond its own.
        high = min(position - self.start, position + rows - 1)
        # Columns that come before key 0 even in the last block.
        early = max(0, -low - (count - 1) * block) // ALIGNED * ALIGNED
        return Window(low + early, count, block, self.bias[:rows, early : high + 1 - low])


@dataclass(frozen=True, slots=True)
class Window:
    """As many keys from `low` on as `bias` [rows, length] has columns, for each of `count` blocks `step` keys on."""

    low: int
    count: int
    step: int
    bias: Tensor

    @property
    def length(self) -> int:
        """Keys that a block sees."""
        return self.bias.shape[1]

    def score(self, query: Tensor, stored: Stored, room: Tensor, scores: Tensor) -> None:
        """Write scores [count, s * rows, length] of query [count, s * rows, D]; `room` holds as many numbers."""
        keys = stored.windows(stored.key, self.low, self.length, self.count, self.step)
        # A batched product is fast only into memory without gaps.
        plain = room[: scores.numel()].view(scores.shape)
        torch.bmm(query, keys.transpose(1, 2), out=plain)
        by_head = (-1, self.bias.shape[0])
        torch.add(plain.unflatten(1, by_head), self.bias, out=scores.unflatten(1, by_head))
        if self.low < 0:
            some = min(self.count, -(self.low // self.step))
            key = self.low + torch.arange(some)[:, None] * self.step + torch.arange(self.length)
            scores[:some].masked_fill_((key < 0)[:, None], float("-inf"))

    def gather(self, weights: Tensor, stored: Stored, out: Tensor) -> None:
        """Add weights [count, s * rows, length] times the values to out [count * s * rows, D]."""
        values = stored.windows(stored.value, self.low, self.length, self.count, self.step)
        out.view(self.count, -1, out.shape[1]).baddbmm_(weights, values)
