"""What a policy chose for some heads of one layer, ready to be executed: lines or blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_cli.policies.prefill.base import BlockPolicy, LinePolicy
from loopserve_cli.policies.prefill.report import Choice
from loopserve_kernels.block_index import BlockIndex, make_block_index
from loopserve_kernels.block_sparse import block_sparse
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.index import make_index
from loopserve_kernels.tile_index import Index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash


@dataclass(frozen=True, slots=True)
class LinePlan:
    """Lines, as tiles and gathered keys; the last `dense_rows` rows see everything."""

    lines: Lines
    index: Index
    dense_rows: int

    @property
    def dense(self) -> Tensor:
        """Which line heads execute everything, bool [P]."""
        return self.index.dense

    def choice(self) -> Choice:
        """The figures of every line head."""
        lines, index = self.lines, self.index
        assert index.entries is not None
        return Choice(index.dense, index.entries, lines.coverage, lines.vertical_count, lines.slash_count)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of query [H, n, D] over key and value [G, N, D]."""
        return vertical_slash(query, key, value, self.index, scaling, self.dense_rows)


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Blocks, as lists of key blocks by row block."""

    index: BlockIndex
    coverage: Tensor

    @property
    def dense(self) -> Tensor:
        """Which choices execute everything, bool [P]."""
        return self.index.dense

    def choice(self) -> Choice:
        """The figures of every choice; it has no lines, so their counts are not known."""
        none = torch.full_like(self.coverage, float("nan"))
        return Choice(self.index.dense, self.index.entries, self.coverage, none, none)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of query [H, n, D] over key and value [G, N, D]."""
        return block_sparse(query, key, value, self.index, scaling)


AttentionPlan = LinePlan | BlockPlan


def plan_of(
    policy: LinePolicy | BlockPolicy, query: Tensor, key: Tensor, scaling: float, dense_rows: int, most_entries: float
) -> AttentionPlan | None:
    """What the policy chooses for query [H, n, D] over key [G, N, D]; None where it wants all of it.

    A head that would compute more than `most_entries` cells is dense. Nothing waits for the device.
    """
    if isinstance(policy, BlockPolicy):
        blocks = policy.blocks(query, key, scaling)
        return BlockPlan(make_block_index(blocks, most_entries), blocks.coverage)
    shape = block_shape(query.shape[2], query.dtype, query.device)
    lines = policy.lines(query, key, scaling, shape[0])
    if lines is None:
        return None
    return LinePlan(
        lines, make_index(lines, query.shape[1], key.shape[1], *shape, dense_rows, most_entries), dense_rows
    )
