"""Block-sparse attention: dense attention's answer over the blocks that an index executes.

    out[h, i] = softmax over the keys of executed blocks, up to row i's own, of (scaling * q_i k_key) applied to v

Query head h reads key-value head h // (H / G) and choice h // (H / P); keys and values are never repeated.
"""

from __future__ import annotations

from torch import Tensor

from loopserve_kernels.block_index import BlockIndex, executed_blocks
from loopserve_kernels.device import on_gpu
from loopserve_kernels.masked_twin import masked_twin


def block_sparse(query: Tensor, key: Tensor, value: Tensor, index: BlockIndex, scaling: float) -> Tensor:
    """Attention of n new rows over N keys, executing `index`; [H, n, D], of the query's dtype.

    query [H, n, D], key and value [G, N, D] (the new rows are the last n of the N), H a multiple of G and of the
    index's P. Heads flagged dense see every key. CUDA runs the Triton kernel, a CPU its own path.
    """
    check_blocks(query, key, value, index)
    if on_gpu(query):
        from loopserve_kernels.block_sparse_triton import block_sparse_triton

        return block_sparse_triton(query, key, value, index, scaling)
    from loopserve_kernels.block_sparse_cpu import block_sparse_cpu

    return block_sparse_cpu(query, key, value, index, scaling)


def block_sparse_torch(query: Tensor, key: Tensor, value: Tensor, index: BlockIndex, scaling: float) -> Tensor:
    """The twin: scores of every cell, hidden where the index does not execute. Holds [n, N] per head."""
    return masked_twin(query, key, value, executed_blocks(index), scaling)


def check_blocks(query: Tensor, key: Tensor, value: Tensor, index: BlockIndex) -> None:
    """Assert that shapes, dtypes and devices fit each other and the index."""
    heads, new, size = query.shape
    groups, keys = key.shape[:2]
    assert key.shape == value.shape == (groups, keys, size), (query.shape, key.shape, value.shape)
    assert heads % groups == 0 and heads % index.dense.shape[0] == 0
    assert (index.grid.new, index.grid.keys) == (new, keys), "the index was built for another length"
    assert query.dtype == key.dtype == value.dtype
    assert query.device == key.device == value.device == index.block.device
