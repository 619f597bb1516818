"""Made-up tensors of one attention layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.options import Layer


@dataclass(frozen=True, slots=True)
class Problem:
    """The new rows' queries [H, n, D] over all keys and values [G, N, D] of one sequence."""

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float

    @property
    def rows(self) -> int:
        """New rows, n."""
        return self.query.shape[1]

    @property
    def keys(self) -> int:
        """Keys, N."""
        return self.key.shape[1]


def random_problem(layer: Layer, rows: int, keys: int, device: torch.device, seed: int) -> Problem:
    """Normal numbers; the same seed and shape give the same on the same device."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype: torch.dtype = getattr(torch, layer.dtype)

    def draw(heads: int, length: int) -> Tensor:
        return torch.randn(heads, length, layer.size, generator=generator, device=device, dtype=dtype)

    return Problem(draw(layer.heads, rows), draw(layer.groups, keys), draw(layer.groups, keys), layer.size**-0.5)


def relative_rms(ours: Tensor, other: Tensor) -> float:
    """Root mean square of the difference over that of `other`, both [H, n, D]; one head at a time."""
    difference = total = 0.0
    for left, right in zip(ours, other, strict=True):
        difference += float((left.float() - right.float()).square().sum(dtype=torch.float64))
        total += float(right.float().square().sum(dtype=torch.float64))
    return (difference / total) ** 0.5


def disagreement(ours: Tensor, other: Tensor) -> str | None:
    """Why two answers to one problem cannot both be right, or None. NaN is a disagreement."""
    most = 1e-3 if ours.dtype == torch.float32 else 2e-2
    rms = relative_rms(ours, other)
    return None if rms <= most else f"its answer differs from ours (relative RMS {rms:.2g})"
