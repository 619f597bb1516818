"""What the kernel tests compare against: lines by brute force, attention in float64, odd tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.chosen_lines import Lines


def relative_rms(ours: Tensor, exact: Tensor) -> float:
    return float(((ours.double() - exact.double()).square().mean() / exact.double().square().mean()).sqrt())


def tensors(
    heads: int, groups: int, rows: int, keys: int, size: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value with strides of their own, in rooms whose unused part is NaN."""
    generator = torch.Generator().manual_seed(seed + 7 * rows + keys + size)
    query = torch.randn(rows, heads, size, generator=generator).to(dtype).transpose(0, 1)
    room = torch.full((2, groups, keys + 9, size), float("nan"), dtype=dtype)
    room[:, :, :keys] = torch.randn(2, groups, keys, size, generator=generator).to(dtype)
    return query, room[0, :, :keys], room[1, :, :keys]


def random_lines(plans: int, keys: int, seed: int, most: int = 12, dense: int | None = None) -> Lines:
    """A few random verticals and slashes per head, fewer in some heads than in others; offset 0 always."""
    generator = torch.Generator().manual_seed(seed)
    vertical = torch.randint(-keys // 3, keys, (plans, most), generator=generator)
    slash = torch.randint(-keys // 3, keys, (plans, most), generator=generator)
    lines = fixed_lines(vertical, slash, keys)
    if dense is not None:
        lines.dense[dense] = True
    return lines


def wanted_cells(lines: Lines, new: int, keys: int) -> Tensor:
    """Causal cells on a chosen line, bool [P, n, N], line by line."""
    position = torch.arange(keys - new, keys)[:, None]
    column = torch.arange(keys)
    cells = torch.zeros(lines.dense.shape[0], new, keys, dtype=torch.bool)
    for plan in range(cells.shape[0]):
        for key in lines.vertical[plan, : lines.vertical_count[plan]].tolist():
            cells[plan] |= column == key
        for offset in lines.slash[plan, : lines.slash_count[plan]].tolist():
            cells[plan] |= position - column == offset
        if lines.dense[plan]:
            cells[plan] = True
    return cells & (column <= position)


def exact_weights(rows: Tensor, positions: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Attention weights [H, m, N] in float64."""
    key = key.double().repeat_interleave(rows.shape[0] // key.shape[0], 0)
    scores = rows.double() @ key.transpose(1, 2) * scaling
    return scores.masked_fill(torch.arange(key.shape[1]) > positions[:, None], float("-inf")).softmax(-1)
