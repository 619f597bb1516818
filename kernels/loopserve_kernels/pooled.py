"""Block means: what one query or key stands for a whole block of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def block_means(part: Tensor, size: int, before: int = 0) -> Tensor:
    """Means of rows [X, n, D] over blocks of `size`, fp32 [X, blocks, D], of the rows that are there.

    The first block lacks its first `before` rows, the last what is left over.
    """
    count = part.shape[1]
    after = -(before + count) % size
    blocks = (before + count + after) // size
    begins = torch.arange(blocks, device=part.device) * size - before
    rows = (begins + size).clamp_max(count) - begins.clamp_min(0)
    summed = F.pad(part.float(), (0, 0, before, after)).unflatten(1, (blocks, size)).sum(2)
    return summed / rows[:, None]


def pooled_scores(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Scores of rows [H, m, D] over keys [G, C, D], [H, m, C], each head over its key-value head."""
    grouped = query.unflatten(0, (key.shape[0], -1))
    return (grouped @ key[:, None].transpose(-1, -2)).flatten(0, 1) * scaling
