"""FlexAttention over the very cells that an index executes: the general tool for sparse masks, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.problem import Problem
from loopserve_kernels.tile_index import Index

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
NO_CPU = "FlexAttention: n/a, it is compared on CUDA only"


def flex_failures() -> tuple[type[Exception], ...]:
    """What FlexAttention raises where it does not run: torch's errors while it compiles, Triton's while it launches."""
    from triton.runtime.errors import TritonError

    return RuntimeError, ValueError, TritonError


def compiled_flex() -> Callable[..., Tensor]:
    """FlexAttention compiled for the shapes of its first call; what was compiled before is dropped.

    One compilation per shape of rows and keys: past its limit of recompilations torch would refuse, and shapes left
    symbolic run slower.
    """
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.reset()
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return compiled


def flex_call(problem: Problem, index: Index, flex: Callable[..., Tensor]) -> Callable[[], Tensor]:
    """Attention [H, n, D] by `flex` over what `index` executes; the block mask is made here, outside the call."""
    mask = block_mask(index, problem.rows, problem.keys)
    query, key, value = problem.batched

    def attend() -> Tensor:
        return flex(query, key, value, block_mask=mask, scale=problem.scaling, enable_gqa=True)[0]

    return attend


def block_mask(index: Index, rows: int, keys: int) -> BlockMask:
    """The index as FlexAttention's block mask, H line heads; only for heads that are not dense.

    Made from the index's own tables: evaluating the mask function on every cell would take n N of them per head.
    """
    from torch.nn.attention.flex_attention import BlockMask

    block, history, device = index.rows_per_block, keys - rows, index.covered.device
    listed = torch.zeros(index.vertical.shape[0], keys + 1, dtype=torch.bool, device=device)
    listed.scatter_(1, index.vertical.long(), True)
    listed, covered = listed[:, :keys].contiguous(), index.covered.bool()
    last = covered.shape[1] - 1

    def mask_mod(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        delta = history + row // block * block - key + (block - 1)
        wanted = covered[head, delta.clamp(0, last)] | listed[head, key]
        return wanted & (key <= history + row)

    some, full = _touched(covered, listed, block, rows, keys)
    partial = some & ~full
    return BlockMask.from_kv_blocks(
        *_ordered(partial), *_ordered(full), BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(rows, keys)
    )


def _touched(covered: Tensor, listed: Tensor, block: int, rows: int, keys: int) -> tuple[Tensor, Tensor]:
    """Which blocks [H, row blocks, key blocks] hold an executed cell, and which hold nothing else."""
    device, history = covered.device, keys - rows
    first_row = history + torch.arange(0, rows, BLOCK, device=device)[:, None]  # positions
    last_row = (first_row + BLOCK - 1).clamp_max(keys - 1)
    first_key = torch.arange(0, keys, BLOCK, device=device)
    # The deltas between a row block and a key block are one range, since our row blocks are smaller than these.
    last_start = first_row + (last_row - first_row) // block * block
    low = (first_row - first_key - (BLOCK - 1) + block - 1).clamp(0, covered.shape[1])
    high = (last_start - first_key + block).clamp(0, covered.shape[1])
    sums = torch.nn.functional.pad(covered.int().cumsum(1, dtype=torch.int32), (1, 0))
    under = (sums[:, high] - sums[:, low]).to(torch.int32)
    columns = torch.nn.functional.pad(listed, (0, -keys % BLOCK)).unflatten(1, (-1, BLOCK))
    some = ((under > 0) | columns.any(2)[:, None]) & (first_key <= last_row)
    whole = first_key + BLOCK - 1 <= first_row
    full = ((under == high - low) | columns.all(2)[:, None]) & whole
    return some, full


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each row block has, and which, first; int32 [1, H, R] and [1, H, R, C]."""
    order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return blocks.sum(-1, dtype=torch.int32)[None], order[None]
