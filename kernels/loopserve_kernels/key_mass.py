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
from loopserve_kernels.key_codes import KeyCodes

POOLS = ("mean", "max")
# Keys whose precision is raised at once on a CPU.
BLOCK = 4096


def key_mass(
    query: Tensor,
    positions: Tensor,
    key: Tensor,
    scaling: float,
    pool: str = "mean",
    count: Tensor | None = None,
    out: Tensor | None = None,
    codes: KeyCodes | None = None,
) -> Tensor:
    """Mass of every key, fp32 [G, N] (float64 for float64 tensors); into `out` where that is given.

    query [H, r, D], the ring of the newest output queries after RoPE; positions [r] int64, absolute and not negative;
    key [G, N, D] with H a multiple of G. A key after all positions has mass 0, whatever stands there, so the whole
    capacity of a store may be given. `count`, int32 with one element on the key's device: only the ring's first
    `count` slots (1 to r) are used, and the others may hold anything. On a GPU positions and count are read by the
    kernel (a CUDA graph replays), nothing of size [H, r, N] is stored, and repeated runs agree to the bit. With `codes`
    of these keys, on a CPU and without `count`, logits are those of the codes, faster and a little off.
    """
    check_ring(query, positions, key, pool, count)
    groups, keys, _ = key.shape
    if out is None:
        precision = torch.float64 if key.dtype == torch.float64 else torch.float32
        out = torch.empty(groups, keys, dtype=precision, device=key.device)
    assert out.shape == (groups, keys) and out.is_contiguous() and out.device == key.device
    if on_gpu(key):
        from loopserve_kernels.key_mass_triton import key_mass_triton

        return key_mass_triton(query, positions, key, scaling, pool, count, out)
    if codes is not None and count is None and codes.mass(query, positions, scaling, pool, out):
        return out
    return key_mass_torch(query, positions, key, scaling, pool, count, out)


def key_mass_torch(
    query: Tensor,
    positions: Tensor,
    key: Tensor,
    scaling: float,
    pool: str,
    count: Tensor | None,
    out: Tensor,
) -> Tensor:
    """The twin: one key-value head at a time, so that weights of one group are all that is held."""
    groups, keys, _ = key.shape
    used = query.shape[1] if count is None else int(count)
    assert 0 < used <= query.shape[1], f"{used} of {query.shape[1]} ring slots"
    query, positions = query[:, :used], positions[:used]
    # Only the newest keys can lie ahead of any of the queries.
    seen = min(int(positions.min()) + 1, keys)
    ahead = torch.arange(seen, keys)[:, None] > positions
    # Room for one group's weights, used again for the next: fresh memory would cost as much as the product.
    weights = torch.empty(keys, query.shape[0] // groups, used, dtype=out.dtype)
    rows = weights[0].numel()
    for group, block in enumerate(query.unflatten(0, (groups, -1))):
        logits_by_key(block.flatten(0, 1).to(out.dtype) * scaling, key[group], weights.flatten(1))
        weights[seen:].masked_fill_(ahead[:, None], float("-inf"))
        torch.softmax(weights, 0, out=weights)
        if pool == "mean":
            torch.mv(weights.flatten(1), weights.new_full((rows,), 1 / rows), out=out[group])
        else:
            torch.amax(weights.mean(2), 1, out=out[group])
    return out


def logits_by_key(rows: Tensor, key: Tensor, out: Tensor) -> None:
    """Key [N, D] times rows [m, D] into out [N, m]; keys of another precision are turned into the rows' by blocks."""
    if key.dtype == rows.dtype:
        torch.mm(key, rows.T, out=out)
        return
    for first in range(0, key.shape[0], BLOCK):
        torch.mm(key[first : first + BLOCK].to(rows.dtype), rows.T, out=out[first : first + BLOCK])


def check_ring(query: Tensor, positions: Tensor, key: Tensor, pool: str, count: Tensor | None) -> None:
    """Assert the shapes of a ring of queries, their positions and the keys."""
    assert query.ndim == 3 and key.ndim == 3 and query.shape[2] == key.shape[2], (query.shape, key.shape)
    assert query.shape[0] % key.shape[0] == 0, f"{query.shape[0]} heads over {key.shape[0]} key-value heads"
    assert positions.shape == query.shape[1:2] and positions.dtype == torch.int64
    assert query.dtype == key.dtype and positions.device == key.device == query.device
    assert pool in POOLS, pool
    assert count is None or (count.numel() == 1 and count.dtype == torch.int32 and count.device == key.device)
