"""Queries and keys that two environments make alike, to the bit: bytes of a hash, and additions and products of fp32.

Random numbers of torch differ between versions and between processors; SHAKE-256 does not.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """H query heads over G key-value heads of D dimensions, N keys; another seed gives other numbers."""

    seed: int
    heads: int
    kv_heads: int
    size: int
    keys: int


def numbers(name: str, *shape: int) -> Tensor:
    """Roughly normal, deviation 1.15: sums of four bytes, centred, over a power of two; exact in fp32."""
    data = bytearray(hashlib.shake_256(name.encode()).digest(4 * math.prod(shape)))
    sums = torch.frombuffer(data, dtype=torch.uint8).view(-1, 4).sum(1)
    return ((sums - 510).float() / 128).view(shape)


def before_rope(shape: Shape) -> tuple[Tensor, Tensor]:
    """Queries [H, N, D] and keys [G, N, D]; heads differ in how sharply they look, so that they compete in earnest."""
    query = numbers(f"query {shape.seed}", shape.heads, shape.keys, shape.size)
    key = numbers(f"key {shape.seed}", shape.kv_heads, shape.keys, shape.size)
    sharpness = torch.tensor([2.0 ** (group % 3 - 1) for group in range(shape.kv_heads)])
    return query, key * sharpness[:, None, None]


def rope(shape: Shape, first: int = 0, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, D] in Llama's order (both halves alike), worked out in double precision.

    Of all N positions, or of `count` that begin at `first`.
    """
    speeds = [ROPE_BASE ** (-2 * i / shape.size) for i in range(shape.size // 2)] * 2
    angles = [[place * speed for speed in speeds] for place in range(first, first + (count or shape.keys))]
    cos, sin = (torch.tensor([[turn(angle) for angle in row] for row in angles]) for turn in (math.cos, math.sin))
    return cos, sin


def after_rope(shape: Shape) -> tuple[Tensor, Tensor]:
    """The same queries and keys, turned by their positions."""
    cos, sin = rope(shape)
    query, key = (
        part * cos + torch.cat([-part[..., shape.size // 2 :], part[..., : shape.size // 2]], -1) * sin
        for part in before_rope(shape)
    )
    return query, key


def checksum(*tensors: Tensor) -> str:
    """SHA-256 of the tensors' bytes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(bytes(tensor.contiguous().view(torch.uint8).flatten().tolist()))
    return total.hexdigest()


def ranges(kept: list[int]) -> str:
    """Ascending indices in few letters: `0-3 17 20-31`."""
    runs: list[list[int]] = []
    for index in kept:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return " ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)
