"""Gather: the selected rows of a store, copied in place into the buffers that decode attends to.

    out[g, t] = store[g, index[g, t]]   for t < count[g]

Rows of the buffers from count[g] on are left as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu


def gather_keys(
    store_key: Tensor,
    store_value: Tensor,
    index: Tensor,
    count: Tensor,
    out_key: Tensor,
    out_value: Tensor,
    out_count: Tensor | None = None,
) -> None:
    """Copy the selected rows of keys and values into preallocated buffers.

    store_key and store_value [G, N, D], index int32 [G, K] with values below N in its first count[g] places (what is
    behind them is padding and never read), count int32 [G], at most K; out_key and out_value [G, C, D], C >= K; where
    `out_count`, int32 [G], is given it gets the counts. The store may lie in the host's pinned memory and the rest on
    a GPU, which then reads the selected rows alone.
    Allocates nothing on a GPU and waits for nothing, so a CUDA graph can hold it.
    """
    check_gather(store_key, store_value, index, count, out_key, out_value)
    if on_gpu(out_key):
        from loopserve_kernels.gather_triton import gather_keys_triton

        return gather_keys_triton(store_key, store_value, index, count, out_key, out_value, out_count)
    gather_keys_torch(store_key, store_value, index, count, out_key, out_value)
    if out_count is not None:
        out_count.copy_(count)


def gather_keys_torch(
    store_key: Tensor, store_value: Tensor, index: Tensor, count: Tensor, out_key: Tensor, out_value: Tensor
) -> None:
    """The twin: one copy of rows per key-value head, straight into its buffer."""
    for group, rows in enumerate(count.tolist()):
        own = index[group, :rows]
        torch.index_select(store_key[group], 0, own, out=out_key[group, :rows])
        torch.index_select(store_value[group], 0, own, out=out_value[group, :rows])


def check_gather(
    store_key: Tensor, store_value: Tensor, index: Tensor, count: Tensor, out_key: Tensor, out_value: Tensor
) -> None:
    """Assert that shapes, dtypes and devices fit each other."""
    groups, _, size = store_key.shape
    assert store_key.shape == store_value.shape and out_key.shape == out_value.shape
    assert out_key.shape[0] == groups and out_key.shape[2] == size, (store_key.shape, out_key.shape)
    assert index.shape[0] == groups and index.shape[1] <= out_key.shape[1], (index.shape, out_key.shape)
    assert count.shape == (groups,) and index.dtype == count.dtype == torch.int32
    assert store_key.dtype == store_value.dtype == out_key.dtype == out_value.dtype
    assert index.device == count.device == out_key.device == out_value.device
    for store in (store_key, store_value):
        assert store.device == out_key.device or store.is_pinned(), "a GPU reads no other memory of the host"
