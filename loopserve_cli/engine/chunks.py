"""How a long input is cut: prefill feeds the model chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Large enough to keep the matrix units busy, small enough to report progress and to be cancelled.
PREFILL_CHUNK = {"cpu": 2048, "cuda": 8192}
# A policy chooses once per chunk, and half of what it saves lies inside the chunk: so its chunks are as long as one
# layer's widest activation stays within so many bytes.
ACTIVATION_BYTES = {"cpu": 2**27, "cuda": 2**30}
LONGEST_CHUNK = 65536


def plain_chunk(device: torch.device) -> int:
    """Rows of a chunk for which no lines are chosen."""
    return PREFILL_CHUNK.get(device.type, 2048)


def choosing_chunk(device: torch.device, dtype: torch.dtype, width: int) -> int:
    """Rows of a chunk for which lines are chosen; `width` is the model's widest layer."""
    rows = ACTIVATION_BYTES.get(device.type, 2**27) // (width * dtype.itemsize)
    return min(LONGEST_CHUNK, rows // 1024 * 1024)


def widest(config: PreTrainedConfig) -> int:
    """The most activations that a layer has for one row; Gemma 3n has a width for each layer."""
    text = config.get_text_config()
    widths = getattr(text, "intermediate_size", None) or 4 * int(text.hidden_size)
    return int(max(widths)) if isinstance(widths, list | tuple) else int(widths)


def chunks(ids: list[int], size: int) -> Iterator[tuple[list[int], int]]:
    """The ids in chunks, each with the number of ids fed once it is done."""
    for first in range(0, len(ids), size):
        chunk = ids[first : first + size]
        yield chunk, first + len(chunk)
