"""How much an index executes, on the host."""

from __future__ import annotations

from loopserve_kernels.index import Index


def cells_of(index: Index) -> int:
    """Cells that all heads execute, dense ones all causal cells; waits for the device."""
    assert index.entries is not None, "build the index by make_index, which counts"
    return int(index.entries.sum())


def dense_heads(index: Index) -> int:
    """Heads that execute everything; waits for the device."""
    return int(index.dense.sum())
