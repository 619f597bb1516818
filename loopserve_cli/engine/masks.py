"""What transformers would mask, told to the attention function without a mask in memory.

There is one unpadded sequence, so a mask says one of three things. Causal: no mask at all. A sliding window: its width,
in a tensor of one element, which costs nothing to make or to move between devices. Anything else, such as chunks or a
model's own pattern: the boolean mask itself, rows by keys.

A model's mask is the one truth about its windows. Not all of them say it to the attention function as well: Phi-MoE
and RecurrentGemma have it in the mask alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def told_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **further: Any,
) -> Tensor | None:
    """The mask as transformers asks for it (`AttentionMaskInterface`), in one of the three forms above."""
    from transformers.masking_utils import causal_mask_function

    if allow_is_causal_skip and local_size is None and mask_function is causal_mask_function:
        return None
    if allow_is_causal_skip and local_size is not None and _slides(mask_function, local_size):
        return torch.full((batch_size, 1, 1, 1), local_size)
    return whole_mask(
        batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, local_size=local_size, **further
    )


def whole_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    **further: Any,
) -> Tensor | None:
    """The boolean mask [1, 1, n, N] itself, for models that compute with it."""
    from transformers.masking_utils import sdpa_mask

    further["allow_is_causal_skip"] = False
    mask: Tensor | None = sdpa_mask(
        batch_size, q_length, kv_length, q_offset, kv_offset, mask_function=mask_function, **further
    )
    return mask


def window_of(mask: Tensor | None) -> int | None:
    """The sliding window that a mask of `told_mask` tells, or None."""
    return int(mask[0, 0, 0, 0]) if mask is not None and mask.dtype == torch.int64 else None


def _slides(mask_function: Callable[..., Any] | None, width: int) -> bool:
    """Whether a mask of that width is a sliding window: row `width` sees its own key and width - 1 before it."""
    assert mask_function is not None
    zero, row, keys = torch.zeros((), dtype=torch.int64), torch.tensor(width), torch.tensor([0, 1, width, width + 1])
    seen: list[bool] = mask_function(zero, zero, row, keys).tolist()
    return seen == [False, True, True, False]
