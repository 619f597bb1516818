"""What transformers would mask is told in one of three forms."""

from __future__ import annotations

import torch
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from loopserve_cli.engine.masks import told_mask, whole_mask, window_of

ROWS, KEYS = 3, 40
SIZES = {"batch_size": 1, "q_length": ROWS, "kv_length": KEYS, "q_offset": KEYS - ROWS, "kv_offset": 0}


def seen_by(mask: torch.Tensor) -> list[list[int]]:
    """The keys that each row sees."""
    assert mask.shape == (1, 1, ROWS, KEYS) and mask.dtype == torch.bool
    return [row.nonzero()[:, 0].tolist() for row in mask[0, 0]]


def test_causal_is_no_mask() -> None:
    assert told_mask(**SIZES, mask_function=causal_mask_function) is None
    assert window_of(None) is None


def test_a_window_is_told_by_its_width_in_one_element() -> None:
    mask = told_mask(**SIZES, mask_function=sliding_window_causal_mask_function(8), local_size=8)
    assert mask is not None and mask.numel() == 1 and window_of(mask) == 8


def test_chunks_are_no_window() -> None:
    chunks = chunked_causal_mask_function(16, torch.zeros(1, dtype=torch.int64))
    mask = told_mask(**SIZES, mask_function=chunks, local_size=16, dtype=torch.float32, device="cpu")
    assert mask is not None and window_of(mask) is None
    assert seen_by(mask) == [list(range(32, 38)), list(range(32, 39)), list(range(32, 40))]


def test_a_mask_that_may_not_be_skipped_is_whole() -> None:
    told = told_mask(**SIZES, mask_function=causal_mask_function, allow_is_causal_skip=False, device="cpu")
    whole = whole_mask(**SIZES, mask_function=causal_mask_function, device="cpu")
    assert told is not None and whole is not None
    assert seen_by(told) == seen_by(whole) == [list(range(38)), list(range(39)), list(range(40))]
