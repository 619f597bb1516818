"""The sample of a chunk: which new rows judge its lines. Made once per chunk, shared by all of its layers."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.choice import choose_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.device import on_gpu
from loopserve_kernels.lines import line_mass
from loopserve_kernels.rows import sample_rows
from loopserve_kernels.rules import Rules
from loopserve_kernels.weights import room_size, runs_of

# Weights held at once, in bytes: more heads than fit are judged one part after the other.
MOST_BYTES = {"cpu": 2**27, "gpu": 5 * 2**28}


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled rows of `new` rows over `keys` keys, on the chunk's device."""

    new: int
    keys: int
    rows: Tensor  # [m] int64, among the new ones
    positions: Tensor  # [m] int64
    room: Tensor  # what a CPU works in

    def lines(self, query: Tensor, key: Tensor, scaling: float, share: str, rules: Rules) -> Lines:
        """Lines of one layer: query [H, n, D], key [G, N, D], share and rules as in `line_mass` and `choose_lines`."""
        sampled, groups = query[:, self.rows], key.shape[0]
        heads = query.shape[0] // groups
        kind = "gpu" if on_gpu(key) else "cpu"
        step = max(1, MOST_BYTES[kind] // (4 * heads * self.rows.shape[0] * self.keys))
        parts = []
        for group in range(0, groups, step):
            given = sampled[group * heads : (group + step) * heads], self.positions, key[group : group + step], scaling
            parts.append(choose_lines(line_mass(*given, share, self.room), *given, rules))
        return parts[0] if len(parts) == 1 else joined(parts, self.keys)


def make_sample(new: int, keys: int, count: int, heads: int, device: torch.device, before: Sample | None) -> Sample:
    """Sample `count` of n = `new` rows for `heads` heads, in the room of the sample before where that is enough.

    Nothing is copied from the host, so that no device is waited for.
    """
    rows = sample_rows(new, count, device=device)
    positions = rows + (keys - new)
    room = torch.empty(0) if before is None else before.room
    if device.type == "cpu":
        needed = min(room_size(heads, runs_of(positions.tolist())), MOST_BYTES["cpu"] // 2)
        if room.numel() < needed:
            with torch.inference_mode(False):  # so that it may be written to in that mode and outside of it
                room = torch.empty(needed)
    return Sample(new, keys, rows, positions, room)


def joined(parts: list[Lines], keys: int) -> Lines:
    """Lines of some heads after those of others, padded to the widest."""

    def join(name: str) -> Tensor:
        found: list[Tensor] = [getattr(part, name) for part in parts]
        if found[0].ndim == 1:
            return torch.cat(found)
        width = max(part.shape[1] for part in found)
        return torch.cat([F.pad(part, (0, width - part.shape[1]), value=keys) for part in found])

    return Lines(*(join(field.name) for field in fields(Lines)))
