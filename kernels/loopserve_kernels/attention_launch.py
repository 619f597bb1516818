"""What the launches of sparse attention's Triton kernels have in common: room for the answer, and most arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from loopserve_kernels.attention_shape import AttentionShape

LOG2E = 1.4426950408889634


def attention_room(query: Tensor, splits: int) -> tuple[Tensor, Tensor, Tensor]:
    """For query [H, n, D]: the answer [H, n, D], the parts [S, H, n, D] to write, and their log-sum-exp [S, H, n].

    One split writes the answer itself, and no log-sum-exp.
    """
    heads, new, size = query.shape
    out = torch.empty(new, heads, size, dtype=query.dtype, device=query.device).transpose(0, 1)
    if splits == 1:
        return out, out[None], torch.empty(0, device=query.device)
    part = torch.empty(splits, heads, new, size, dtype=torch.float32, device=query.device)
    return out, part, torch.empty(splits, heads, new, dtype=torch.float32, device=query.device)


def attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    part: Tensor,
    lse: Tensor,
    scaling: float,
    tile: int,
    shape: AttentionShape,
) -> dict[str, Any]:
    """Tensors, strides, lengths and constants of a launch that reads `tile` keys at once, by keyword."""
    heads, new, size = query.shape
    keys = key.shape[1]
    assert scaling > 0 and tile >= 16 and tile & (tile - 1) == 0
    if keys < tile:
        # A tile is read whole wherever it lies, so there must be as many keys as it has.
        key, value = (torch.nn.functional.pad(rows, (0, 0, 0, tile - keys)) for rows in (key, value))
    strides = dict(
        stride_qh=query.stride(0), stride_qn=query.stride(1), stride_kg=key.stride(0), stride_vg=value.stride(0),
        stride_os=part.stride(0), stride_oh=part.stride(1), stride_on=part.stride(2),
    )  # fmt: skip
    # Follows the head size, so no length changes it. A view that lies otherwise is read element by element.
    unit = math.gcd(16, size)
    if any(stride % unit for stride in (*strides.values(), key.stride(1), value.stride(1))):
        unit = 1
    return dict(
        p_q=query, p_k=key, p_v=value, p_out=part, p_lse=lse, new=new, keys=keys, heads=heads,
        heads_per_key=heads // key.shape[0], scale_log2=scaling * LOG2E, STRIDE_K=key.stride(1),
        STRIDE_V=value.stride(1), UNIT=unit, D=size, BLOCK_D=max(16, triton.next_power_of_2(size)), TILE=tile,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32", SPLIT=part.shape[0] > 1,
        num_stages=shape.stages, enable_fp_fusion=True,
        **{name: stride // unit for name, stride in strides.items()},
    )  # fmt: skip
