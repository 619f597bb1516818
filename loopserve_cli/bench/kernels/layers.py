"""The coverage that a profile reaches on a real model, layer by layer: the demo model reads a made-up dialogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.coverage import coverage_of_lines
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.loader import LoadedModel, load
from loopserve_cli.errors import UsageError
from loopserve_cli.policies.prefill import LinePolicy, PrefillTurn
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import causal_entries, executed_entries
from loopserve_kernels.index import build_index
from loopserve_kernels.vertical_slash import block_shape


@dataclass(frozen=True, slots=True)
class LayerCoverage:
    """One layer, means over its heads; `worst_head` is the least of `lines`. `dense_heads` execute everything.

    `sampled` is what the choice believed; `lines` and `executed` are over all rows.
    """

    tokens: int
    layer: int
    sampled: float
    lines: float
    worst_head: float
    executed: float
    density: float
    verticals: float
    slashes: float
    dense_heads: int
    heads: int


class CoverageTurn(PrefillTurn):
    """Stands where a turn's prefill does: lets every layer choose and measures the choice, but attends densely."""

    def __init__(self, policy: LinePolicy, say: Callable[[str], None]) -> None:
        """Nothing measured yet."""
        super().__init__(policy)
        self.line_policy = policy
        self.say = say
        self.found: list[LayerCoverage] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Dense attention, so that every layer sees the model's real queries and keys."""
        self.say(f"coverage of layer {layer} over {key.shape[2]:,} tokens")
        self.found.append(layer_coverage(layer, query[0], key[0], scaling, self.line_policy))
        return dense_attention(query, key, value, scaling)


def layer_coverage(layer: int, query: Tensor, key: Tensor, scaling: float, policy: LinePolicy) -> LayerCoverage:
    """What `policy` chooses for query [H, n, D] over key [G, N, D], executed as a turn does, and what that holds.

    The gate's `most_density` makes heads dense here too; its least lengths do not, so that short inputs can be asked.
    """
    heads, rows, size = query.shape
    keys = key.shape[1]
    shape = block_shape(size, query.dtype, query.device)
    lines = policy.lines(query, key, scaling, shape[0])
    assert lines is not None
    index = build_index(lines, keys, *shape)
    causal = causal_entries(rows, keys)
    entries = executed_entries(index, rows, keys, policy.dense_rows)
    dense = index.dense | (entries > policy.gate.most_density * causal)
    held = coverage_of_lines(query, key, scaling, lines, replace(index, dense=dense), policy.dense_rows)
    counts = [float(count.double().mean()) for count in (lines.vertical_count, lines.slash_count)]
    return LayerCoverage(
        tokens=keys,
        layer=layer,
        sampled=float(lines.coverage.double().mean()),
        lines=float(held.lines.mean()),
        worst_head=float(held.lines.min()),
        executed=float(held.executed.mean()),
        density=float(torch.where(dense, causal, entries).double().mean()) / causal,
        verticals=counts[0],
        slashes=counts[1],
        dense_heads=int(dense.sum()) * heads // dense.shape[0],
        heads=heads,
    )


def measure_coverage(
    policy: LinePolicy, tokens: Sequence[int], device: str, seed: int, say: Callable[[str], None]
) -> list[LayerCoverage]:
    """Every layer of the demo model over dialogues of so many tokens.

    Raises UsageError when the model does not read that many.
    """
    loaded = load(ModelOptions("demo", device=device), say)
    limit = loaded.context_limit
    if limit is not None and max(tokens) > limit:
        raise UsageError(f"--coverage-tokens {max(tokens)}: the demo model reads at most {limit}; give fewer")
    found = []
    for length in tokens:
        found += coverage_of(loaded, prompt_ids(loaded.tokenizer, length, seed), policy, say)
    return found


@torch.inference_mode()
def coverage_of(
    loaded: LoadedModel, ids: list[int], policy: LinePolicy, say: Callable[[str], None]
) -> list[LayerCoverage]:
    """Every layer of a model over one input, fed whole."""
    turn = CoverageTurn(policy, say)
    loaded.model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False, logits_to_keep=1, prefill=turn)
    return turn.found


def overall(found: Sequence[LayerCoverage]) -> list[dict[str, Any]]:
    """Means over the layers, the worst head of all, and heads counted together, for every length."""
    rows = []
    for tokens in sorted({part.tokens for part in found}):
        parts = [asdict(part) for part in found if part.tokens == tokens]
        row: dict[str, Any] = {"tokens": tokens}
        for name in ("sampled", "lines", "executed", "density", "verticals", "slashes"):
            row[name] = sum(part[name] for part in parts) / len(parts)
        row["worst_head"] = min(part["worst_head"] for part in parts)
        row |= {name: sum(part[name] for part in parts) for name in ("dense_heads", "heads")}
        rows.append(row)
    return rows
