"""Vertical-slash attention: dense attention's answer over the cells that an index executes.

    out[h, i] = softmax over executed keys of (scaling * q_i k_key) applied to v

Query head h reads key-value head h // (H / G) and line head h // (H / P); keys and values are never repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.attention_shape import attention_shape
from loopserve_kernels.device import on_gpu
from loopserve_kernels.executed import executed_mask
from loopserve_kernels.masked_twin import masked_twin
from loopserve_kernels.tile_index import Index

WHOLE_RUN = 1 << 24


def vertical_slash(
    query: Tensor, key: Tensor, value: Tensor, index: Index, scaling: float, dense_rows: int = 0
) -> Tensor:
    """Attention of n new rows over N keys, executing `index`; [H, n, D], of the query's dtype.

    query [H, n, D], key and value [G, N, D] (the new rows are the last n of the N), H a multiple of G and of the
    index's P. Heads flagged dense, and the last `dense_rows` rows of every head, see every key. The index must
    be built with the `block_shape` of these tensors. CUDA runs the Triton kernel, a CPU its own path.
    """
    check_attention(query, key, value, index)
    if on_gpu(query):
        from loopserve_kernels.vertical_slash_triton import vertical_slash_triton

        return vertical_slash_triton(query, key, value, index, scaling, dense_rows)
    from loopserve_kernels.vertical_slash_cpu import vertical_slash_cpu

    return vertical_slash_cpu(query, key, value, index, scaling, dense_rows)


def vertical_slash_torch(
    query: Tensor, key: Tensor, value: Tensor, index: Index, scaling: float, dense_rows: int = 0
) -> Tensor:
    """The twin: scores of every cell, hidden where the index does not execute. Holds [n, N] per head."""
    return masked_twin(query, key, value, executed_mask(index, query.shape[1], key.shape[1], dense_rows), scaling)


def block_shape(size: int, dtype: torch.dtype, device: torch.device) -> tuple[int, int]:
    """Rows per block and deltas per tile for a head size, chosen before the index is built.

    A slash alone costs a tile of M columns, so M is as small as matrix units like it. A CPU takes runs whole.
    """
    if device.type == "cpu":
        return 32, WHOLE_RUN
    shape = attention_shape(size, dtype, device)
    return shape.rows, shape.tile


def check_attention(query: Tensor, key: Tensor, value: Tensor, index: Index) -> None:
    """Assert that shapes, dtypes and devices fit each other and the index."""
    heads, new, size = query.shape
    groups, keys = key.shape[:2]
    plans = index.dense.shape[0]
    assert key.shape == value.shape == (groups, keys, size), (query.shape, key.shape, value.shape)
    assert 0 < new <= keys and heads % groups == 0 and heads % plans == 0
    assert groups % plans == 0 or plans % groups == 0, f"{plans} line heads over {groups} key-value heads"
    assert index.covered.shape[1] == keys + index.reach, "the index was built for another length"
    assert query.dtype == key.dtype == value.dtype
    assert query.device == key.device == value.device == index.covered.device
