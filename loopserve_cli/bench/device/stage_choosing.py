"""Choosing lines by part: launches, times called from Python and replayed as a graph, of dense attention's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.device.counting import counted
from loopserve_cli.bench.kernels.clock import captured_ms, kernels_of, median_ms
from loopserve_cli.bench.kernels.options import LAYERS
from loopserve_cli.bench.kernels.problem import Problem, planted_problem
from loopserve_cli.bench.kernels.sparse_layer import SparseLayer, cells_of, dense_heads
from loopserve_cli.policies.prefill import line_policy
from loopserve_cli.profile import load_profile

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


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record for each part of each shape and setting, dense attention first."""
    for rows, keys in SHAPES[scale]:
        problem = planted_problem(LAYERS[device.type], rows, keys, device, 0)
        for changes in SETTINGS[scale]:
            profile = load_profile("loopserve-prefill").with_overrides(f"prefill.{change}" for change in changes)
            layer = SparseLayer(problem, line_policy(profile.prefill))
            facts = {"rows": rows, "keys": keys, "setting": ", ".join(changes) or "as shipped"}
            yield from parts(layer, facts, device)


def parts(layer: SparseLayer, facts: Record, device: torch.device) -> Iterator[Record]:
    """Dense attention, the lines, the index, and attention by it."""
    lines = layer.lines()
    index = layer.index(lines)
    cells = index.dense.shape[0] * layer.problem.entries
    chosen = {"density": cells_of(index) / cells, "dense_heads": dense_heads(index)}
    works: dict[str, Callable[[], object]] = {
        "dense attention": layer.problem.dense,
        "lines": layer.lines,
        "index": lambda: layer.index(lines),
        "sparse attention": lambda: layer.attend(index),
    }
    meta = on_meta(layer)
    for part, work in works.items():
        own = chosen if part == "sparse attention" else {}
        yield attempt({**facts, "part": part, **own}, partial(figures, part, work, device, meta))


def figures(part: str, work: Callable[[], object], device: torch.device, meta: SparseLayer) -> Record:
    """Eager and captured times, the kernels that ran, and the launches as counted without a GPU."""
    times = {"eager_ms": median_ms(work, device), **captured_ms(work, device)}
    return times | kernels_of(work, device) | launches(part, meta)


def on_meta(layer: SparseLayer) -> SparseLayer:
    """The same layer without storage, as a GPU of any machine would see it."""
    problem = layer.problem
    query, key, value = (part.to("meta") for part in (problem.query, problem.key, problem.value))
    return SparseLayer(Problem(query, key, value, problem.scaling), layer.policy)


def launches(part: str, layer: SparseLayer) -> dict[str, Any]:
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
