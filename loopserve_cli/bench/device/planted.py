"""A made-up layer whose attention is concentrated as real layers' is: made-up noise alone has no lines to choose."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.options import Layer
from loopserve_cli.bench.kernels.problem import Problem

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
    quarter has a direction that planted keys share. Everything is normal noise besides.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    scaling, turning = layer.size**-0.5, layer.size // 8 * 6
    content = layer.size - turning
    key, query, value = (noise(heads, count, layer.size) for heads, count in _counts(layer, rows, keys))
    offset = (keys // 4 * torch.arange(layer.heads, device=device) // layer.heads * (torch.arange(layer.heads) % 2)).to(
        device
    )
    place = torch.arange(keys, device=device)
    angle_key, angle_query = _angles(place, turning), _angles(place[keys - rows :] - offset[:, None], turning)
    strength = (PEAK / scaling / (turning // 2)) ** 0.5
    key[..., :turning] = NOISE * key[..., :turning] + strength * angle_key
    query[..., :turning] = NOISE * query[..., :turning] + strength * angle_query
    planted = noise(layer.groups, keys).argsort(1)[:, : max(1, keys // EVERY)]
    spike = (SPIKE / scaling / content) ** 0.5
    key[..., turning:].scatter_add_(
        1, planted[..., None].expand(-1, -1, content), spike * torch.ones_like(key[:, : planted.shape[1], turning:])
    )
    query[..., turning:] += spike
    dtype: torch.dtype = getattr(torch, layer.dtype)
    return Problem(query.to(dtype), key.to(dtype), value.to(dtype), scaling)


def _counts(layer: Layer, rows: int, keys: int) -> list[tuple[int, int]]:
    return [(layer.groups, keys), (layer.heads, rows), (layer.groups, keys)]


def _angles(place: Tensor, size: int) -> Tensor:
    """Cosines and sines [..., size] of places [...]: a product of two is the sum of the cosines of their distance."""
    speed = ROPE_BASE ** (-2 * torch.arange(size // 2, device=place.device) / size)
    angle = place[..., None] * speed
    return torch.cat([angle.cos(), angle.sin()], -1)
