"""Choosing lines by part: launches, times called from Python and replayed as a graph, of dense attention's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.device.cells import cells_of, dense_heads
from loopserve_cli.bench.device.counting import counted
from loopserve_cli.bench.device.planted import planted_problem
from loopserve_cli.bench.device.timing import captured_ms, kernels_of, median_ms
from loopserve_cli.bench.kernels.options import LAYERS
from loopserve_cli.bench.kernels.problem import Problem
from loopserve_cli.policies.prefill import PrefillPolicy, prefill_policy
from loopserve_cli.profile import load_profile
from loopserve_kernels.choice import Lines
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import causal_entries
from loopserve_kernels.index import Index, make_index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash

SHAPES = {
    "gpu": ((8192, 8192), (32768, 32768), (8192, 131072)),
    "cpu": ((2048, 2048), (8192, 8192), (2048, 16384)),
    "quick": ((1024, 1024),),
}
SETTINGS = {
    "gpu": ((), ("share=group",), ("objective=lines",)),
    "cpu": ((), ("objective=lines",)),
    "quick": ((),),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's problem and how lines are chosen for it."""

    problem: Problem
    policy: PrefillPolicy

    @property
    def shape(self) -> tuple[int, int]:
        """Rows per block and deltas per tile."""
        return block_shape(self.problem.query.shape[-1], self.problem.query.dtype, self.problem.query.device)

    def lines(self) -> Lines:
        """What the policy chooses."""
        found = self.policy.lines(self.problem.query, self.problem.key, self.problem.scaling, self.shape[0])
        assert found is not None
        return found

    def index(self, lines: Lines) -> Index:
        """The index that executes it, dear heads dense."""
        rows, keys = self.problem.rows, self.problem.keys
        most = self.policy.gate.most_density * causal_entries(rows, keys)
        return make_index(lines, rows, keys, *self.shape, self.policy.dense_rows, most)

    def attend(self, index: Index) -> Tensor:
        """Attention by that index."""
        problem = self.problem
        return vertical_slash(problem.query, problem.key, problem.value, index, problem.scaling, self.policy.dense_rows)

    def dense(self) -> Tensor:
        """Dense attention, as the product computes it."""
        problem = self.problem
        return dense_attention(problem.query[None], problem.key[None], problem.value[None], problem.scaling)


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record for each part of each shape and setting, dense attention first."""
    for rows, keys in SHAPES[scale]:
        problem = planted_problem(LAYERS[device.type], rows, keys, device, 0)
        for changes in SETTINGS[scale]:
            profile = load_profile("loopserve-prefill").with_overrides(f"prefill.{change}" for change in changes)
            layer = Layer(problem, prefill_policy(profile.prefill))
            facts = {"rows": rows, "keys": keys, "setting": ", ".join(changes) or "as shipped"}
            yield from parts(layer, facts, device)


def parts(layer: Layer, facts: Record, device: torch.device) -> Iterator[Record]:
    """Dense attention, the lines, the index, and attention by it."""
    lines = layer.lines()
    index = layer.index(lines)
    chosen = {"density": density(index, layer.problem), "dense_heads": dense_heads(index)}
    works: dict[str, Callable[[], object]] = {
        "dense attention": layer.dense,
        "lines": layer.lines,
        "index": lambda: layer.index(lines),
        "sparse attention": lambda: layer.attend(index),
    }
    meta = on_meta(layer)
    for part, work in works.items():
        own = chosen if part == "sparse attention" else {}
        yield attempt({**facts, "part": part, **own}, partial(figures, part, work, device, meta))


def figures(part: str, work: Callable[[], object], device: torch.device, meta: Layer) -> Record:
    """Eager and captured times, the kernels that ran, and the launches as counted without a GPU."""
    times = {"eager_ms": median_ms(work, device), **captured_ms(work, device)}
    return times | kernels_of(work, device) | launches(part, meta)


def density(index: Index, problem: Problem) -> float:
    """Executed cells of causal ones, over all heads."""
    return cells_of(index) / (index.dense.shape[0] * causal_entries(problem.rows, problem.keys))


def on_meta(layer: Layer) -> Layer:
    """The same layer without storage, as a GPU of any machine would see it."""
    problem = layer.problem
    query, key, value = (part.to("meta") for part in (problem.query, problem.key, problem.value))
    return Layer(Problem(query, key, value, problem.scaling), layer.policy)


def launches(part: str, layer: Layer) -> dict[str, Any]:
    """Launches and waits of one part, counted without running it; None where Triton is not there to count.

    Dense attention is one of torch's own kernels, which the meta device does not tell.
    """
    if part == "dense attention":
        return {}
    try:
        with counted():
            layer.lines()  # what a chunk's first layer makes for all of them
        with counted() as before:
            lines = layer.lines()
        with counted() as making:
            index = layer.index(lines)
        with counted() as attending:
            layer.attend(index)
    except ImportError:
        return {"launches": None, "waits": None}
    found = {"lines": before, "index": making, "sparse attention": attending}[part]
    return {"launches": found.launches, "waits": found.waits.total()}
