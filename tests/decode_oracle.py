"""What the decode kernels' tests compare against: rings of queries, working sets, both computed in float64."""

from __future__ import annotations

import torch
from attention_oracle import exact_weights, tensors
from torch import Tensor


def ring(
    heads: int, groups: int, slots: int, keys: int, size: int = 64, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """A ring of queries at increasing positions, the last of them the last key, over NaN-padded keys."""
    query, key, _ = tensors(heads, groups, slots, keys, size, dtype)
    return query, torch.arange(keys - slots, keys).clamp_min(0), key


def exact_mass(query: Tensor, positions: Tensor, key: Tensor, scaling: float, pool: str) -> Tensor:
    """Mass [G, N] in float64, from weights of every cell."""
    by_head = exact_weights(query, positions, key, scaling).mean(1).unflatten(0, (key.shape[0], -1))
    return by_head.mean(1) if pool == "mean" else by_head.amax(1)


def working_set(
    heads: int, lengths: list[int], size: int = 64, dtype: torch.dtype = torch.float32, spare: int = 9
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and lengths; strides of their own, NaN where there is nothing."""
    generator = torch.Generator().manual_seed(sum(lengths) + size)
    groups, capacity = len(lengths), max(lengths) + spare
    query = torch.randn(heads, 2, size, generator=generator).to(dtype)[:, 0]
    room = torch.full((2, capacity, groups, size), float("nan"), dtype=dtype).transpose(1, 2)
    for group, length in enumerate(lengths):
        room[:, group, :length] = torch.randn(2, length, size, generator=generator).to(dtype)
    return query, room[0], room[1], torch.tensor(lengths, dtype=torch.int32)


def exact_decode(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """Softmax over the valid rows in float64, head by head."""
    out = []
    for head, row in enumerate(query.double()):
        group = head // (query.shape[0] // key.shape[0])
        used = int(lengths[group])
        out.append((key[group, :used].double() @ row * scaling).softmax(0) @ value[group, :used].double())
    return torch.stack(out)
