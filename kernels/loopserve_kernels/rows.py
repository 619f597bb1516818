"""Sampled rows: which new queries speak for a turn when its lines are chosen."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 8


def sample_size(new: int) -> int:
    """How many of `new` rows to sample: an eighth, no fewer than 16 and no more than 64 (or all there are)."""
    return min(new, max(16, min(64, new // 8)))


def sample_rows(new: int, count: int | None = None, block: int = BLOCK, device: torch.device | None = None) -> Tensor:
    """Indices of sampled rows among the new ones, int64 [m], ascending and always the same for the same lengths.

    They are made on `device`, a CPU unless said, without a copy.

    Mini-blocks of `block` contiguous rows stand at even distances and the last ends with the last row: the end
    of a chat turn is mostly template, so its tail alone would choose lines for the wrong text. A slash shows
    in contiguous rows as the same offset again, which a row on its own cannot tell from a vertical.
    """
    assert new > 0 and block > 0
    count = sample_size(new) if count is None else min(count, new)
    block = min(block, count)
    blocks = -(-count // block)
    if count == new:
        return torch.arange(new, device=device)
    # Block j ends at the (j + 1)-th of `blocks` equal parts; parts are never shorter than a block.
    ends = (torch.arange(1, blocks + 1, device=device) * new) // blocks
    rows = (ends[:, None] - block + torch.arange(block, device=device)).flatten()
    return rows[-count:]
