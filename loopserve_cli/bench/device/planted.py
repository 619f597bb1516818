"""A made-up layer whose attention is concentrated as real layers' is: made-up noise alone has no lines to choose."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.options import Layer
from loopserve_cli.bench.kernels.problem import Problem, random_problem

# Scores of a planted offset and of a planted key above the rest, in units of the softmax's exponent.
PEAK = 14.0
SPIKE = 6.0
NOISE = 1.5
ROPE_BASE = 1e4
# One key in so many is a vertical of its group.
EVERY = 97


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
