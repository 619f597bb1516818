"""Key mass: how much attention the newest output queries give to every key of their key-value head.

For head h, ring slot i at position p_i, over all keys it can see (key <= p_i):

    P[h, i, key] = exp(scaling * q_hi k_key) / sum_key' exp(scaling * q_hi k_key')
    head[h, key] = mean_i P[h, i, key]
    mass[g, key] = mean (or max) of head[h, key] over the heads of group g

The softmax is over everything before anything is selected, so a key that is not in the working set can come back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu

POOLS = ("mean", "max")


def key_mass(
    query: Tensor, positions: Tensor, key: Tensor, scaling: float, pool: str = "mean", count: Tensor | None = None
) -> Tensor:
    """Mass of every key, fp32 [G, N] (float64 for float64 tensors).

    query [H, r, D], the ring of the newest output queries after RoPE; positions [r] int64, absolute and not negative;
    key [G, N, D] with H a multiple of G. A key after all positions has mass 0, whatever stands there, so the whole
    capacity of a store may be given. `count`, int32 with one element on the key's device: only the ring's first
    `count` slots (1 to r) are used, and the others may hold anything. On a GPU positions and count are read by the
    kernel (a CUDA graph replays), nothing of size [H, r, N] is stored, and repeated runs agree to the bit.
    """
    check_ring(query, positions, key, pool, count)
    if on_gpu(key):
        from loopserve_kernels.key_mass_triton import key_mass_triton

        return key_mass_triton(query, positions, key, scaling, pool, count)
    return key_mass_torch(query, positions, key, scaling, pool, count)


def key_mass_torch(
    query: Tensor, positions: Tensor, key: Tensor, scaling: float, pool: str = "mean", count: Tensor | None = None
) -> Tensor:
    """The twin: one key-value head at a time, so that weights of one group are all that is held."""
    precision = torch.float64 if key.dtype == torch.float64 else torch.float32
    groups, keys, size = key.shape
    used = query.shape[1] if count is None else int(count)
    assert 0 < used <= query.shape[1], f"{used} of {query.shape[1]} ring slots"
    query, positions = query[:, :used], positions[:used]
    # Only the newest keys can lie ahead of any of the queries.
    seen = min(int(positions.min()) + 1, keys)
    ahead = torch.arange(seen, keys) > positions[:, None]
    out = torch.empty(groups, keys, dtype=precision)
    # Room for one group's weights, used again for the next: fresh memory would cost as much as the product.
    scores, weights = torch.empty(2, query.shape[0] // groups, used, keys, dtype=precision)
    for group, block in enumerate(query.unflatten(0, (groups, -1))):
        packed = block.reshape(-1, size).to(precision) * scaling
        torch.mm(packed, key[group].to(precision).T, out=scores.flatten(0, 1))
        scores[:, :, seen:].masked_fill_(ahead, float("-inf"))
        by_head = torch.softmax(scores, -1, out=weights).mean(1)
        out[group] = by_head.mean(0) if pool == "mean" else by_head.amax(0)
    return out


def check_ring(query: Tensor, positions: Tensor, key: Tensor, pool: str, count: Tensor | None) -> None:
    """Assert the shapes of a ring of queries, their positions and the keys."""
    assert query.ndim == 3 and key.ndim == 3 and query.shape[2] == key.shape[2], (query.shape, key.shape)
    assert query.shape[0] % key.shape[0] == 0, f"{query.shape[0]} heads over {key.shape[0]} key-value heads"
    assert positions.shape == query.shape[1:2] and positions.dtype == torch.int64
    assert query.dtype == key.dtype and positions.device == key.device == query.device
    assert pool in POOLS, pool
    assert count is None or (count.numel() == 1 and count.dtype == torch.int32 and count.device == key.device)
