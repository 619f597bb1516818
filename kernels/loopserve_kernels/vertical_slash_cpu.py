"""Vertical-slash attention on a CPU: few calls of SDPA's own kernel over views, merged by their log-sum-exp.

A run of deltas is the same window of keys in every row block, M keys further on each time. So the windows of all
blocks are one overlapping strided view of the keys, and one batched call attends a whole run without copying.
Verticals are gathered once per head; which row block may see which of them is one bias per block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.dense import dense_attention, merge
from loopserve_kernels.executed import first_dense_row
from loopserve_kernels.index import Index

ROWS_AT_ONCE = 1024


def vertical_slash_cpu(
    query: Tensor, key: Tensor, value: Tensor, index: Index, scaling: float, dense_rows: int = 0
) -> Tensor:
    """As `vertical_slash`: heads that share both their lines and their keys go together."""
    query, key, value = (part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value))
    heads, new, _ = query.shape
    groups, plans = key.shape[0], index.dense.shape[0]
    together = min(heads // groups, heads // plans)
    split = first_dense_row(new, index.rows_per_block, dense_rows)
    seen = key.shape[1] - new + split
    out = torch.empty_like(query)
    for head in range(0, heads, together):
        own = slice(head, head + together)
        group, plan = head * groups // heads, head * plans // heads
        sparse = 0 if index.dense[plan] else split
        if sparse:
            part = _Part(query[own, :split], key[group, :seen], value[group, :seen], index.rows_per_block, scaling)
            out[own, :split] = part.attend(index, plan)
        if sparse < new:
            kv = key[None, group : group + 1], value[None, group : group + 1]
            out[own, sparse:] = dense_attention(query[None, own, sparse:], *kv, scaling)[0]
    return out


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of heads with the same lines and keys: query [s, n, D], key and value [N, D]."""

    query: Tensor
    key: Tensor
    value: Tensor
    block: int
    scaling: float

    @property
    def history(self) -> int:
        return self.key.shape[0] - self.query.shape[1]

    def attend(self, index: Index, plan: int) -> Tensor:
        """Output [s, n, D]: the nearest run gives every row its first cells, all else is merged in."""
        so_far = _Merged(torch.zeros_like(self.query), self.query.new_full(self.query.shape[:2], float("-inf")).float())
        if self.query.dtype == torch.float64:
            so_far.lse = so_far.lse.double()
        for start, length in _runs(index, plan):
            self._run(so_far, start, length)
        self._verticals(so_far, index.vertical[plan, : int(index.vertical_count[plan])], index.covered[plan])
        return so_far.out

    def _run(self, so_far: _Merged, start: int, length: int) -> None:
        """All row blocks against their window of keys at delta in [start, start + length)."""
        new, block, history = self.query.shape[1], self.block, self.history
        last = start + length - 1
        first = max(0, -(-(start - history) // block))  # the first block that sees any of it
        whole = min(max(first, -(-(last - history) // block)), new // block)  # the first that sees all of it
        for number in [*range(first, whole), *range(max(first, new // block), -(-new // block))]:
            self._windows(so_far, number, 1, start, length)
        if whole < new // block:
            self._windows(so_far, whole, new // block - whole, start, length)

    def _windows(self, so_far: _Merged, number: int, count: int, start: int, length: int) -> None:
        """`count` blocks from block `number` on; more than one only where all have all rows and all keys."""
        first = number * self.block
        rows = min(self.block, self.query.shape[1] - first)
        position = self.history + first
        low, high = position - (start + length - 1), min(position - start, self.history + first + rows - 1)
        low = max(low, 0)
        bias = None
        if start < 0:
            keys = torch.arange(low - position, high + 1 - position)
            hidden = keys > torch.arange(rows)[:, None]
            bias = torch.zeros(rows, high + 1 - low, dtype=self.query.dtype).masked_fill_(hidden, float("-inf"))
        query = _blocks(self.query, first, count, rows)
        key, value = (_window(part, low, high + 1 - low, count, self.block, query.shape[1]) for part in self._stored())
        so_far.add(first, count, rows, *_attend(query, key, value, bias, self.scaling))

    def _verticals(self, so_far: _Merged, vertical: Tensor, covered: Tensor) -> None:
        """Gathered keys: the bias hides, block by block, those that a tile covers or that lie ahead."""
        vertical = vertical[: int(torch.searchsorted(vertical, self.key.shape[0]))]
        new, block = self.query.shape[1], self.block
        key, value = (part[vertical.long()] for part in self._stored())
        step = max(1, ROWS_AT_ONCE // block)
        blocks = new // block
        chunks = [(number, min(step, blocks - number), block) for number in range(0, blocks, step)]
        if new % block:
            chunks.append((blocks, 1, new % block))
        for number, count, rows in chunks:
            position = self.history + (number + torch.arange(count, dtype=torch.int32)) * block
            visible = int(torch.searchsorted(vertical, position[-1:]))
            if visible == 0:
                continue
            delta = position[:, None] - vertical[:visible]
            hidden = (delta <= 0) | covered[(delta + block - 1).clamp_min(0)].bool()
            bias = torch.zeros(hidden.shape, dtype=key.dtype).masked_fill_(hidden, float("-inf"))
            query = _blocks(self.query, number * block, count, rows)
            shape = (*query.shape[:2], visible, key.shape[1])
            out, lse = _attend(
                query, key[:visible].expand(shape), value[:visible].expand(shape), bias[:, None, None], self.scaling
            )
            # The kernel gives a row without a visible key a log-sum-exp of 0.
            lse = lse.masked_fill(hidden.all(1)[:, None, None], float("-inf"))
            so_far.add(number * block, count, rows, out, lse)

    def _stored(self) -> tuple[Tensor, Tensor]:
        return self.key, self.value


@dataclass(slots=True)
class _Merged:
    """Attention so far: out [s, n, D] and its log-sum-exp [s, n]."""

    out: Tensor
    lse: Tensor

    def add(self, first: int, count: int, rows: int, out: Tensor, lse: Tensor) -> None:
        """Merge attention [count, s, rows, D] over further keys into the rows from `first` on."""
        old, old_lse = _blocks(self.out, first, count, rows), _blocks(self.lse, first, count, rows)
        old.copy_(merge(out, lse, old, old_lse))
        torch.logaddexp(old_lse, lse, out=old_lse)


def _runs(index: Index, plan: int) -> list[tuple[int, int]]:
    """The tiles of a head as runs (start, length): tiles that touch are one, so every row sees part of every run."""
    tiles = int(index.tile_count[plan])
    runs: list[tuple[int, int]] = []
    for start, length in zip(
        index.tile_start[plan, :tiles].tolist(), index.tile_length[plan, :tiles].tolist(), strict=True
    ):
        if runs and start == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((start, length))
    return runs


def _blocks(part: Tensor, first: int, count: int, rows: int) -> Tensor:
    """View rows `first` on of [s, n, ...] as [count, s, rows, ...]."""
    return part[:, first : first + count * rows].unflatten(1, (count, rows)).transpose(0, 1)


def _window(part: Tensor, low: int, length: int, count: int, block: int, heads: int) -> Tensor:
    """View [N, D] as overlapping windows [count, heads, length, D], each `block` keys after the one before."""
    stride = part.stride(0)
    return part.as_strided(
        (count, heads, length, part.shape[1]),
        (block * stride, 0, stride, 1),
        part.storage_offset() + low * stride,
    )


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float) -> tuple[Tensor, Tensor]:
    """SDPA's CPU kernel with its log-sum-exp; the bias broadcasts over batch, heads and rows."""
    if bias is not None and bias.ndim == 2:
        bias = bias[None, None]
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=bias, scale=scaling
    )
    return out, lse
