"""Decode attention: one new row per query head over the first lengths[g] keys of every key-value head.

    out[h] = sum_{key < lengths[g]} softmax(scaling * q_h k_key) v_key,   g = h // (H / G)

The same function serves a working set (all lengths equal, or one per head as AdaKV wants) and full attention over a
whole store (every length the store's). Rows at and after a length are never read: they may hold anything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.device import on_gpu


def decode_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """Attention of one row per head, [H, D], of the query's dtype.

    query [H, D], key and value [G, C, D] with H a multiple of G, lengths int32 [G], each from 1 to C. On a GPU the
    lengths are read by the kernel and nothing on the host depends on them, so a CUDA graph captured once replays
    while they grow. On a CPU a length outside its range is an AssertionError, and nothing but the output is allocated.
    """
    check_decode(query, key, value, lengths)
    if on_gpu(query):
        from loopserve_kernels.decode_triton import decode_attention_triton

        return decode_attention_triton(query, key, value, lengths, scaling)
    return decode_attention_cpu(query, key, value, lengths, scaling)


def decode_attention_torch(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """The twin: softmax written out, one key-value head after the other."""
    groups = key.shape[0]
    precision = torch.float64 if query.dtype == torch.float64 else torch.float32
    parts = []
    for group, length in enumerate(host_lengths(lengths, key.shape[1])):
        rows = query.unflatten(0, (groups, -1))[group].to(precision)
        weights = (rows @ key[group, :length].to(precision).T * scaling).softmax(-1)
        parts.append(weights @ value[group, :length].to(precision))
    return torch.cat(parts).to(query.dtype)


def decode_attention_cpu(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """SDPA over views: the query heads of a group are its rows, so each key is read once and none is masked."""
    groups = key.shape[0]
    rows = query.unflatten(0, (1, groups, -1))
    wanted = host_lengths(lengths, key.shape[1])
    if len(set(wanted)) == 1:
        used = slice(wanted[0])
        out = F.scaled_dot_product_attention(rows, key[None, :, used], value[None, :, used], scale=scaling)
        return out.flatten(0, 2)
    out = torch.empty(query.shape, dtype=query.dtype)
    for group, length in enumerate(wanted):
        own = slice(group, group + 1)
        part = F.scaled_dot_product_attention(
            rows[:, own], key[None, own, :length], value[None, own, :length], scale=scaling
        )
        out.unflatten(0, (groups, -1))[group] = part[0, 0]
    return out


def host_lengths(lengths: Tensor, capacity: int) -> list[int]:
    """The lengths as numbers; asserts that there is something to attend to, and room for it."""
    wanted: list[int] = lengths.tolist()
    assert all(0 < length <= capacity for length in wanted), f"lengths {wanted} of a capacity of {capacity}"
    return wanted


def check_decode(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor) -> None:
    """Assert that shapes, dtypes and devices fit each other; values of lengths stay on their device."""
    heads, size = query.shape
    groups, capacity = key.shape[:2]
    assert key.shape == value.shape == (groups, capacity, size), (query.shape, key.shape, value.shape)
    assert heads % groups == 0, f"{heads} heads over {groups} key-value heads"
    assert lengths.shape == (groups,) and lengths.dtype == torch.int32, (lengths.shape, lengths.dtype)
    assert query.dtype == key.dtype == value.dtype
    assert query.device == key.device == value.device == lengths.device
