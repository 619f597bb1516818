"""Made-up tensors of one attention layer, and how two answers to them are compared.

Normal numbers have no lines worth choosing; a planted problem is as concentrated as real layers are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.options import Layer
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import causal_entries
from loopserve_kernels.tile_index import Index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash

# Scores of a planted offset and of a planted key above the rest, in units of the softmax's exponent.
PEAK = 14.0
SPIKE = 6.0
NOISE = 1.5
ROPE_BASE = 1e4
# One key in so many is a vertical of its group.
EVERY = 97


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

    @property
    def entries(self) -> int:
        """Causal entries of one head."""
        return causal_entries(self.rows, self.keys)

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows per block and deltas per tile of the kernel that attends by an index."""
        return block_shape(self.query.shape[-1], self.query.dtype, self.query.device)

    @property
    def batched(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same as a batch of one sequence."""
        return self.query[None], self.key[None], self.value[None]

    def dense(self) -> Tensor:
        """Dense attention [H, n, D], as the product computes it."""
        return dense_attention(*self.batched, self.scaling)[0]

    def sparse(self, index: Index, dense_rows: int = 0) -> Tensor:
        """Attention [H, n, D] over what the index executes."""
        return vertical_slash(self.query, self.key, self.value, index, self.scaling, dense_rows)


def random_problem(layer: Layer, rows: int, keys: int, device: torch.device, seed: int) -> Problem:
    """Normal numbers; the same seed and shape give the same on the same device."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype: torch.dtype = getattr(torch, layer.dtype)

    def draw(heads: int, length: int) -> Tensor:
        return torch.randn(heads, length, layer.size, generator=generator, device=device, dtype=dtype)

    return Problem(draw(layer.heads, rows), draw(layer.groups, keys), draw(layer.groups, keys), layer.size**-0.5)


def planted_problem(layer: Layer, rows: int, keys: int, device: torch.device, seed: int) -> Problem:
    """Queries [H, n, D] that look at an offset of their head's and at some of the keys, over keys [G, N, D].

    Three quarters of the head are rotary, so that scores there depend on the offset alone and peak at one; the last
    quarter has a direction that planted keys share. Everything is normal noise besides. The same arguments give the
    same problem on the same device.
    """
    noise = random_problem(replace(layer, dtype="float32"), rows, keys, device, seed)
    query, key, scaling = noise.query, noise.key, noise.scaling
    turning = layer.size // 8 * 6
    place = torch.arange(keys, device=device)
    strength = (PEAK / scaling / (turning // 2)) ** 0.5
    looked_at = place[keys - rows :] - _offsets(layer.heads, keys, device)[:, None]
    key[..., :turning] = NOISE * key[..., :turning] + strength * _angles(place, turning)
    query[..., :turning] = NOISE * query[..., :turning] + strength * _angles(looked_at, turning)
    spike = (SPIKE / scaling / (layer.size - turning)) ** 0.5
    # Other keys in every group, whatever the noise is.
    planted = (key[..., 0].argsort(1) < max(1, keys // EVERY)).to(key.dtype)
    key[..., turning:] += spike * planted[..., None]
    query[..., turning:] += spike
    dtype: torch.dtype = getattr(torch, layer.dtype)
    return Problem(query.to(dtype), key.to(dtype), noise.value.to(dtype), scaling)


def _offsets(heads: int, keys: int, device: torch.device) -> Tensor:
    """The offset that each head looks at, int64 [H]: every other one at its own place, the others here."""
    head = torch.arange(heads, device=device)
    return keys // 4 * head // heads * (head % 2)


def _angles(place: Tensor, size: int) -> Tensor:
    """Cosines and sines [..., size] of places [...]: a product of two is the sum of the cosines of their distance."""
    speed = ROPE_BASE ** (-2 * torch.arange(size // 2, device=place.device) / size)
    angle = place[..., None] * speed
    return torch.cat([angle.cos(), angle.sin()], -1)


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
