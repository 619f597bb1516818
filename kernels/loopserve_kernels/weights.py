"""The weights of sampled rows on a CPU: computed once, then read by key, by offset and along chosen offsets.

Rows at consecutive positions p, p + 1, ... make a run, and a run holds only the keys that its last row sees. In its
block [H, r, K] an offset is a diagonal, which a view with row stride K + 1 turns into a column: so sums by offset
are plain sums over rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Run:
    """Sampled rows `first` .. `first + rows` - 1, which stand at `position` and after it without a gap."""

    first: int
    rows: int
    position: int

    @property
    def seen(self) -> int:
        """Keys that the last of them sees."""
        return self.position + self.rows


@dataclass(frozen=True, slots=True)
class SampledWeights:
    """P[h, i, key] of H heads, block after block in one buffer; later calls with the same room overwrite it."""

    flat: Tensor  # [H * cells of a head]
    row: Tensor  # [H, m] int64, where in `flat` a row's key 0 lies
    positions: Tensor  # [m]
    runs: tuple[Run, ...]

    def blocks(self) -> list[Tensor]:
        """One view [H, r, K] for each run."""
        heads, blocks, start = self.row.shape[0], [], 0
        for run in self.runs:
            size = heads * run.rows * run.seen
            blocks.append(self.flat[start : start + size].view(heads, run.rows, run.seen))
            start += size
        return blocks

    def by_key(self, keys: int) -> Tensor:
        """Sums over the rows, [H, N]."""
        mass = self.flat.new_zeros(self.row.shape[0], keys)
        for run, block in zip(self.runs, self.blocks(), strict=True):
            mass[:, : run.seen] += block.sum(1)
        return mass

    def by_offset(self, keys: int) -> Tensor:
        """Sums along every offset position - key, [H, N]."""
        heads = self.row.shape[0]
        # By falling offset, so that the first diagonal of every run ends at the last place.
        mass = self.flat.new_zeros(heads, keys)
        for run, block in zip(self.runs, self.blocks(), strict=True):
            strides = (run.rows * run.seen, run.seen + 1, 1)
            whole = block.as_strided((heads, run.rows, run.position + 1), strides, block.storage_offset())
            mass[:, keys - 1 - run.position :] += whole.sum(1)
            if run.rows > 1:
                mass[:, keys - run.seen : keys - 1 - run.position] += _corner(block)
        return mass.flip(1)

    def along(self, heads: Tensor, slash: Tensor) -> tuple[Tensor, Tensor]:
        """Weights on offsets slash [S, s] of `heads` [S, members], [S, members, m, s], and their keys [S, m, s].

        Cells before key 0 weigh 0 and say key 0.
        """
        key = self.positions[:, None] - slash[:, None]
        seen = key >= 0
        key.clamp_min_(0)
        return self.flat[self.row[heads][..., None] + key[:, None]] * seen[:, None], key


def sampled_weights(rows: Tensor, positions: Tensor, key: Tensor, scaling: float, room: Tensor | None = None) -> tuple[
    SampledWeights, Tensor
]:  # fmt: skip
    """Weights of sampled rows [H, m, D] over key [G, N, D], and their log-sum-exp [H, m].

    `room` is a buffer of at least `room_size` numbers to work in; fresh memory costs more than the arithmetic.
    """
    precision = torch.float64 if key.dtype == torch.float64 else torch.float32
    heads, count, size = rows.shape
    groups = key.shape[0]
    runs = runs_of(positions.tolist())
    needed = room_size(heads, runs)
    if room is None or room.numel() < needed or room.dtype != precision:
        room = torch.empty(needed, dtype=precision)
    key = key.to(precision).transpose(1, 2)
    packed = (rows.to(precision) * scaling).unflatten(0, (groups, -1))
    weights = SampledWeights(room, _row_places(heads, runs), positions, runs)
    lse = rows.new_empty(heads, count, dtype=precision)
    scratch = room[needed - heads * max(run.rows * run.seen for run in runs) :]
    for run, block in zip(runs, weights.blocks(), strict=True):
        own = slice(run.first, run.first + run.rows)
        scores = scratch[: block.numel()].view(groups, -1, run.seen)
        torch.bmm(packed[:, :, own].reshape(groups, -1, size), key[:, :, : run.seen], out=scores)
        scores = scores.view(block.shape)
        ahead = torch.ones(run.rows, run.rows, dtype=torch.bool).triu(1)
        scores[:, :, run.position :].masked_fill_(ahead, float("-inf"))
        torch.softmax(scores, -1, out=block)
        # The heaviest weight is exp(highest score - lse), and it cannot be 0.
        lse[:, own] = scores.amax(-1) - block.amax(-1).log()
    return weights, lse


def runs_of(positions: list[int]) -> tuple[Run, ...]:
    """Ascending positions as runs."""
    starts = [i for i, position in enumerate(positions) if i == 0 or position != positions[i - 1] + 1]
    ends = [*starts[1:], len(positions)]
    return tuple(Run(start, end - start, positions[start]) for start, end in zip(starts, ends, strict=True))


def room_size(heads: int, runs: tuple[Run, ...]) -> int:
    """Numbers that the weights of so many heads take, with the scores of the largest run beside them."""
    cells = [run.rows * run.seen for run in runs]
    return heads * (sum(cells) + max(cells))


def _row_places(heads: int, runs: tuple[Run, ...]) -> Tensor:
    places, start = [], 0
    for run in runs:
        block = start + torch.arange(heads * run.rows) * run.seen
        places.append(block.view(heads, run.rows))
        start += heads * run.rows * run.seen
    return torch.cat(places, 1)


def _corner(block: Tensor) -> Tensor:
    """Diagonals of [H, r, K] that begin below the first row, [H, r - 1], the longest last."""
    heads, rows, _ = block.shape
    width = 2 * (rows - 1)
    padded = F.pad(block[:, :, : rows - 1], (rows - 1, 0))
    return padded.as_strided((heads, rows, rows - 1), (rows * width, width + 1, 1)).sum(1)
