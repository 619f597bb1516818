"""Rotary position embedding of queries and keys, and the norm of each head before it where a model has one.

    out = x cos + (-x_high, x_low) sin   over the first R of D numbers; those behind them stay

x_low and x_high are the halves of the R numbers (arXiv 2104.09864, as transformers lays them out).
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu
from loopserve_kernels.norm import rms_norm_torch
from loopserve_kernels.rotation import Rotation, check_rotation


def rotate(query: Tensor, key: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Queries [n, H, D] and keys [n, G, D] at their positions, in new tensors; on a GPU one launch."""
    check_rotation(query, key, rotation)
    if on_gpu(query):
        from loopserve_kernels.rotate_triton import rotate_triton

        return rotate_triton(query, key, rotation)
    return rotate_torch(query, key, rotation)


def rotate_torch(query: Tensor, key: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """The twin."""
    return (
        _turned(query, rotation, rotation.query_weight),
        _turned(key, rotation, rotation.key_weight),
    )


def _turned(x: Tensor, rotation: Rotation, weight: Tensor | None) -> Tensor:
    if weight is not None:
        x = rms_norm_torch(x, weight, rotation.eps)
    return turned(x, rotation.cos[:, None], rotation.sin[:, None])


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x [..., D] by cos and sin [..., R], which are broadcast; in a new tensor."""
    turning, staying = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    low, high = turning.chunk(2, dim=-1)
    out = turning * cos + torch.cat((-high, low), dim=-1) * sin
    return torch.cat((out, staying), dim=-1) if staying.shape[-1] else out


def turned_back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What `turned` made x [..., D] of, also where cos and sin are scaled, as YaRN's are."""
    scale = cos.square() + sin.square()
    return turned(x, cos / scale, -sin / scale)
