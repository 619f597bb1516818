"""What row blocks see of a run of deltas on a CPU: one overlapping strided view of the keys, for one batched product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Columns are a multiple of this: products of odd widths are a third slower.
ALIGNED = 16
# A run of at least so many deltas is scored for so many row blocks together, although each sees only its part.
TALL = ((512, 4), (192, 2))


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

    `bias` [tall * M, length + (tall - 1) * M] hides from the rows of `tall` blocks what they do not see.
    """

    start: int
    length: int
    tall: int
    bias: Tensor

    @classmethod
    def of(cls, start: int, length: int, block: int) -> Run:
        """Deltas [start, start + length) for blocks of M = `block` rows."""
        columns = length + -length % ALIGNED
        tall = next((tall for least, tall in TALL if length >= least), 1)
        row = torch.arange(tall * block)[:, None]
        key = torch.arange(columns + (tall - 1) * block) - (start + columns - 1)  # 0 is the first row's own
        delta = row // block * block - key
        hidden = (delta < start) | (delta >= start + length) | (key > row)
        return cls(start, columns, tall, torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")))

    @property
    def most_columns(self) -> int:
        """Scores that a row has of it, at most."""
        return self.bias.shape[1]

    def window(self, position: int, blocks: int, rows: int, block: int) -> Window:
        """What `blocks` row blocks see of it, each of `rows` rows; the first row stands at `position`."""
        tall = self.tall if blocks % self.tall == 0 else 1
        low = position - (self.start + self.length - 1)
        # A short last block has no keys beyond its own.
        high = min(position - self.start, position + rows - 1) + (tall - 1) * block
        bias = self.bias[: tall * rows, : high + 1 - low].unflatten(0, (tall, 1, rows))
        return Window(low, high + 1 - low, blocks // tall, tall * block, bias)


@dataclass(frozen=True, slots=True)
class Window:
    """`length` keys from `low` on, and so on `count` times, each `step` keys after the one before."""

    low: int
    length: int
    count: int
    step: int
    bias: Tensor  # [tall, 1, rows, length]

    def score(self, query: Tensor, stored: Stored, room: Tensor, scores: Tensor) -> None:
        """Write scores [blocks, s * rows, length] of query [blocks, s * rows, D]; `room` holds as many numbers."""
        query = query.view(self.count, -1, query.shape[2])
        keys = stored.windows(stored.key, self.low, self.length, self.count, self.step)
        # A batched product is fast only into memory of its own.
        plain = room[: self.count * query.shape[1] * self.length].view(self.count, -1, self.length)
        torch.bmm(query, keys.transpose(1, 2), out=plain)
        tall, _, rows, _ = self.bias.shape
        target = scores.unflatten(0, (self.count, tall)).unflatten(2, (-1, rows))
        torch.add(plain.view(target.shape), self.bias, out=target)
        if self.low < 0:
            early = min(self.count, -(self.low // self.step))
            key = self.low + torch.arange(early)[:, None] * self.step + torch.arange(self.length)
            target[:early].masked_fill_((key < 0)[:, None, None, None], float("-inf"))

    def gather(self, weights: Tensor, stored: Stored, out: Tensor) -> None:
        """Add weights [blocks, s * rows, length] times the values to out [blocks * s * rows, D]."""
        values = stored.windows(stored.value, self.low, self.length, self.count, self.step)
        together = weights.unflatten(0, (self.count, -1)).flatten(1, 2)
        out.view(self.count, -1, out.shape[1]).baddbmm_(together, values)
