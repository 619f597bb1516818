"""One turn's prefill: asks the policy layer by layer, executes what it chose, and keeps count of what that cost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopserve_cli.policies.prefill.base import PrefillPolicy
from loopserve_cli.profiling import Spans
from loopserve_kernels.choice import Lines
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import causal_entries, executed_entries
from loopserve_kernels.index import Index, build_index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash


@dataclass(frozen=True, slots=True)
class PrefillReport:
    """What a turn's prefill did, over all layers, heads and chunks. None: not known, or nothing to know.

    `density` is entries computed / causal entries. `coverage` is the mean share of the sampled rows' attention on
    the chosen lines (1 for a dense head), None for fixed patterns, which nobody measured. The lines are means over
    the heads that ran sparse. `dense_layers` counts layers in which no head did. `select_ms` is the choosing with its
    index, `attention_ms` the attention itself, dense or sparse.
    """

    select_ms: float
    attention_ms: float
    density: float | None
    coverage: float | None
    lines_vertical: float | None
    lines_slash: float | None
    dense_layers: int


@dataclass(frozen=True, slots=True)
class _Call:
    """One layer over one chunk; `sums`, of `_sums`, is None when all of it was dense without asking."""

    layer: int
    new: int
    heads: int
    causal: int
    sums: Tensor | None


class PrefillTurn:
    """The prefill of one turn under one policy; a new one for every turn."""

    def __init__(self, policy: PrefillPolicy) -> None:
        """Nothing done yet."""
        self.policy = policy
        self.last_chunk = True
        self._calls: list[_Call] = []
        self._choosing = Spans()
        self._attending = Spans()

    @property
    def layers(self) -> int:
        """How many layers were asked so far."""
        return len({call.layer for call in self._calls})

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer: query [1, H, n, D] over key and value [1, G, N, D]; returns [1, H, n, D]."""
        new, keys = query.shape[2], key.shape[2]
        rows = self.policy.dense_rows if self.last_chunk else 0
        index = None
        if self.policy.gate.opens(new, keys) and value.shape[-1] == query.shape[-1]:
            with self._choosing.span(query.device):
                index = self._plan(layer, query[0], key[0], scaling, rows)
        else:
            self.count_dense(layer, query, key)
        with self.attending(query.device):
            # On a CPU it costs nothing to look whether any head is sparse; a GPU would have to be waited for.
            if index is None or (query.device.type == "cpu" and bool(index.dense.all())):
                return dense_attention(query, key, value, scaling)
            return vertical_slash(query[0], key[0], value[0], index, scaling, rows)[None]

    def attending(self, device: torch.device) -> AbstractContextManager[None]:
        """What is done inside counts as attention."""
        return self._attending.span(device)

    def count_dense(self, layer: int, query: Tensor, key: Tensor) -> None:
        """Note that a layer ran dense over query [1, H, n, D] and key [1, G, N, D]."""
        new, keys = query.shape[2], key.shape[2]
        self._calls.append(_Call(layer, new, query.shape[1], causal_entries(new, keys), None))

    def _plan(self, layer: int, query: Tensor, key: Tensor, scaling: float, dense_rows: int) -> Index | None:
        """The index to execute, heads flagged dense where that is cheaper; None when the policy wants all of it."""
        new, keys = query.shape[1], key.shape[1]
        rows_per_block, tile = block_shape(query.shape[2], query.dtype, query.device)
        lines = self.policy.lines(query, key, scaling, rows_per_block)
        if lines is None:
            self.count_dense(layer, query[None], key[None])
            return None
        index = build_index(lines, keys, rows_per_block, tile)
        causal = causal_entries(new, keys)
        entries = executed_entries(index, new, keys, dense_rows)
        dense = index.dense | (entries > self.policy.gate.most_density * causal)
        entries = entries.masked_fill(dense, causal)
        self._calls.append(_Call(layer, new, query.shape[0], causal, _sums(lines, dense, entries)))
        return replace(index, dense=dense)

    def report(self) -> PrefillReport:
        """The turn's figures; waits for the devices."""
        sums = [call.sums.cpu() for call in self._calls if call.sums is not None]
        rows = iter(torch.stack(sums).tolist() if sums else [])
        executed = causal = covered = weight = vertical = slash = sparse_heads = 0.0
        sparse_layers = set()
        for call in self._calls:
            all_entries = call.causal * call.heads
            causal += all_entries
            weight += call.new
            if call.sums is None:
                executed += all_entries
                covered += call.new
                continue
            entries, coverage, verticals, slashes, sparse, plans = next(rows)
            executed += entries * call.heads / plans
            covered += coverage / plans * call.new
            vertical, slash, sparse_heads = vertical + verticals, slash + slashes, sparse_heads + sparse
            if sparse:
                sparse_layers.add(call.layer)
        coverage_mean = covered / weight if weight else None
        return PrefillReport(
            select_ms=self._choosing.ms(),
            attention_ms=self._attending.ms(),
            density=executed / causal if causal else None,
            coverage=None if coverage_mean != coverage_mean else coverage_mean,
            lines_vertical=vertical / sparse_heads if sparse_heads else None,
            lines_slash=slash / sparse_heads if sparse_heads else None,
            dense_layers=self.layers - len(sparse_layers),
        )


def _sums(lines: Lines, dense: Tensor, entries: Tensor) -> Tensor:
    """Entries, coverage, verticals and slashes of sparse heads, how many those are, and of how many line heads.

    One small tensor that stays on its device, so that no layer makes the host wait.
    """
    sparse = ~dense
    coverage = lines.coverage.masked_fill(dense, 1.0)
    parts = (
        entries.sum(),
        coverage.sum(),
        (lines.vertical_count * sparse).sum(),
        (lines.slash_count * sparse).sum(),
        sparse.sum(),
        torch.full((), len(dense), device=dense.device),
    )
    return torch.stack([part.double() for part in parts])
