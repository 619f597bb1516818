"""The gate of a feed-forward layer: silu(gate) * up (SwiGLU, arXiv 2002.05202)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.device import on_gpu


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, [n, I], of two [n, I] whose rows may lie apart; silu is rounded before the product."""
    assert gate.ndim == 2 and gate.shape == up.shape and gate.dtype == up.dtype
    if on_gpu(gate):
        from loopserve_kernels.gated_triton import silu_mul_triton

        return silu_mul_triton(gate, up)
    return silu_mul_torch(gate, up)


def silu_mul_torch(gate: Tensor, up: Tensor) -> Tensor:
    """The twin."""
    return F.silu(gate) * up
