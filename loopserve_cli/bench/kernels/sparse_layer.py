"""One attention layer as sparse prefill runs it: lines are chosen, indexed, and attended by."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from loopserve_cli.bench.kernels.problem import Problem
from loopserve_cli.policies.prefill import LinePolicy
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.index import make_index
from loopserve_kernels.tile_index import Index


@dataclass(frozen=True, slots=True)
class SparseLayer:
    """A layer's problem, and the policy that chooses its lines."""

    problem: Problem
    policy: LinePolicy

    def lines(self) -> Lines:
        """What the policy chooses."""
        problem = self.problem
        found = self.policy.lines(problem.query, problem.key, problem.scaling, problem.blocks[0])
        assert found is not None
        return found

    def index(self, lines: Lines) -> Index:
        """The index that executes it, dear heads dense."""
        problem, policy = self.problem, self.policy
        most = policy.gate.most_density * problem.entries
        return make_index(lines, problem.rows, problem.keys, *problem.blocks, policy.dense_rows, most)

    def attend(self, index: Index) -> Tensor:
        """Attention [H, n, D] by that index."""
        return self.problem.sparse(index, self.policy.dense_rows)


def cells_of(index: Index) -> int:
    """Cells that all heads execute, dense ones all causal cells; waits for the device."""
    assert index.entries is not None, "build the index by make_index, which counts"
    return int(index.entries.sum())


def dense_heads(index: Index) -> int:
    """Heads that execute everything; waits for the device."""
    return int(index.dense.sum())
