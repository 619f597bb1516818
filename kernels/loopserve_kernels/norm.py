"""RMSNorm of a residual stream, with the addition before it (arXiv 1910.07467).

sum = x + delta,   out[i, c] = weight[c] * sum[i, c] / sqrt(mean_c sum[i, c]^2 + eps)
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu


def add_rms_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum and its norm, each [n, C] of x's dtype; x and delta [n, C], weight [C].

    Without `delta` the sum is x itself. The norm is taken in fp32 of the sum as it is rounded, and rounded before it
    is weighed, as the models do. On a GPU one launch.
    """
    assert x.ndim == 2 and weight.shape == x.shape[1:], (x.shape, weight.shape)
    assert delta is None or (delta.shape == x.shape and delta.dtype == x.dtype)
    if on_gpu(x):
        from loopserve_kernels.norm_triton import add_rms_norm_triton

        return add_rms_norm_triton(x, delta, weight, eps)
    return add_rms_norm_torch(x, delta, weight, eps)


def add_rms_norm_torch(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The twin."""
    total = x if delta is None else x + delta
    return total, rms_norm_torch(total, weight, eps)


def rms_norm_torch(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The norm alone, over the last dimension."""
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)
