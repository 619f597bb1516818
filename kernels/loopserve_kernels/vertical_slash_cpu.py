"""Vertical-slash attention on a CPU: the scores of some rows written out side by side, and one softmax over them.

A run of deltas is the same window of keys in every row block, M keys further on each time, so one batched product
over a strided view scores a whole run without copying. Verticals are gathered once per head and scored by one product
for all rows. Both lie beside each other, hidden cells at minus infinity, so nothing has to be merged. Blocks of 32
rows reach 0.85 of a large product's rate that way; SDPA's own kernel reaches half of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import first_dense_row
from loopserve_kernels.tile_index import Index
from loopserve_kernels.windows_cpu import ALIGNED, Run, Stored

# Scores written out at once: about what the second-level caches hold.
SCORES_AT_ONCE = 2**20
# With fewer rows at once, fewer verticals are scored that lie ahead of all but the last of them.
ROWS_AT_ONCE = 1024


def vertical_slash_cpu(
    query: Tensor, key: Tensor, value: Tensor, index: Index, scaling: float, dense_rows: int = 0
) -> Tensor:
    """As `vertical_slash`: heads that share both their lines and their keys go together. Half types compute in fp32."""
    query, key, value = (part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value))
    heads, new, _ = query.shape
    groups, plans, block = key.shape[0], index.dense.shape[0], index.rows_per_block
    together = min(heads // groups, heads // plans)
    split = first_dense_row(new, block, dense_rows)
    seen = key.shape[1] - new + split
    out = torch.empty_like(query)
    if split < new:
        out[:, split:] = dense_attention(query[None, :, split:], key[None], value[None], scaling)[0]
    if split == 0:
        return out
    lines = [None if dense else _Lines.of(index, plan, seen) for plan, dense in enumerate(index.dense.tolist())]
    pad = max(ROWS_AT_ONCE, block) + max((run.length for line in lines if line for run in line.runs), default=0)
    for group in range(groups):
        kv = key[group, :seen], value[group, :seen]
        stored = Stored.of(*kv, scaling, pad)
        for head in range(group * heads // groups, (group + 1) * heads // groups, together):
            rows, line = query[head : head + together, :split], lines[head * plans // heads]
            target = out[head : head + together, :split]
            if line is None:
                target.copy_(dense_attention(rows[None], kv[0][None, None], kv[1][None, None], scaling)[0])
            else:
                _attend(rows, stored, line, block, target)
    return out


@dataclass(frozen=True, slots=True)
class _Lines:
    """One line head: its runs, its verticals ascending, and the same padded with keys that nobody sees, int64 [K].

    `hides` [M - 1 + N], by delta from 1 - M on, is minus infinity where a run holds the delta: a vertical there is not
    to be counted again. One ahead of a block is at such a delta too, since offset 0 is always in.
    """

    runs: list[Run]
    keys: list[int]
    vertical: Tensor
    hides: Tensor
    covered: int  # no run holds a larger delta

    @classmethod
    def of(cls, index: Index, plan: int, keys: int) -> _Lines:
        """The lines of a head whose rows see the first `keys` keys."""
        listed = index.vertical[plan, : int(index.vertical_count[plan])].tolist()
        listed = listed[: bisect_left(listed, keys)]
        padded = listed + [2 * keys] * (-len(listed) % ALIGNED)
        hides = torch.zeros(index.covered.shape[1]).masked_fill_(index.covered[plan].bool(), float("-inf"))
        found = _runs(index, plan)
        runs = [Run.of(start, length, index.rows_per_block) for start, length in found]
        return cls(runs, listed, torch.tensor(padded, dtype=torch.long), hides, sum(found[-1]) - 1)

    @property
    def columns(self) -> int:
        """Scores that a row has, at most."""
        return sum(run.length for run in self.runs) + len(self.vertical)


def _attend(query: Tensor, stored: Stored, lines: _Lines, block: int, out: Tensor) -> None:
    """Attention of rows of heads with the same lines and keys; query and out [s, n, D]."""
    heads, new, size = query.shape
    history = stored.key.shape[0] - stored.pad - new
    place = stored.pad + lines.vertical.clamp_max(history + new - 1)
    key, value = stored.key[place].T, stored.value[place]
    step = max(1, min(ROWS_AT_ONCE // block, SCORES_AT_ONCE // (heads * block * lines.columns)))
    most = step * heads * block
    all_scores = key.new_empty(most * lines.columns)
    room = key.new_empty(most * max(run.length for run in lines.runs))
    for first, count, rows in _pieces(new, block, step):
        position = history + first
        last = position + (count - 1) * block
        part = _rows(query, first, count, rows).contiguous().to(key.dtype).view(count, -1, size)
        windows = [run.window(position, count, rows, block) for run in lines.runs if run.start <= last]
        seen = bisect_left(lines.keys, last)
        seen += -seen % ALIGNED
        widths = [*(window.length for window in windows), seen]
        scores = all_scores[: part.shape[0] * part.shape[1] * sum(widths)].view(*part.shape[:2], -1)
        *by_run, by_vertical = scores.split(widths, dim=2)
        for window, scored in zip(windows, by_run, strict=True):
            window.score(part, stored, room, scored)
        if seen:
            torch.mm(part.flatten(0, 1), key[:, :seen], out=by_vertical.flatten(0, 1))
            free = bisect_left(lines.keys, position - lines.covered)
            delta = position + torch.arange(count)[:, None] * block - lines.vertical[free:seen]
            by_vertical[:, :, free:].add_(torch.take(lines.hides, (delta + block - 1).clamp_min_(0))[:, None])
        torch.softmax(scores, -1, out=scores)
        found = torch.mm(by_vertical.flatten(0, 1), value[:seen])
        for window, weights in zip(windows, by_run, strict=True):
            window.gather(weights, stored, found)
        _rows(out, first, count, rows).copy_(found.view(count, heads, rows, size))


def _pieces(new: int, block: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Row blocks that are done together: the first row, how many blocks, rows of each; a short last block alone."""
    whole = new // block * block
    for first in range(0, whole, step * block):
        yield first, min(step, (whole - first) // block), block
    if whole < new:
        yield whole, 1, new - whole


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


def _rows(part: Tensor, first: int, count: int, rows: int) -> Tensor:
    """View rows `first` on of [s, n, D] as [count, s, rows, D]."""
    return part[:, first : first + count * rows].unflatten(1, (count, rows)).transpose(0, 1)
