"""Attention that is causal from the lower right, by SDPA alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def lower_right(query: Tensor, key: Tensor, value: Tensor, scaling: float, grouped: bool) -> Tensor:
    """SDPA with causality from the lower right, as a bias that its fused kernels know."""
    if query.shape[2] == key.shape[2]:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    # Imported here: it loads torch._dynamo, which takes seconds that a CPU seldom needs.
    from torch.nn.attention.bias import causal_lower_right

    bias = causal_lower_right(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling, enable_gqa=grouped)
