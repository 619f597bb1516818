"""The coefficients of the cost model: dense and sparse attention per cell, choosing per sampled pair, products."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.kernels.options import LAYERS
from loopserve_cli.bench.kernels.problem import planted_problem
from loopserve_cli.bench.kernels.sparse_layer import SparseLayer, cells_of
from loopserve_cli.bench.kernels.variant import Variant, time_rounds, warm_up
from loopserve_cli.policies.prefill import line_policy
from loopserve_cli.profile import load_profile
from loopserve_kernels.rows import sample_size

# Keys that attention is timed over, and fewer ones, from which what choosing costs at least is told apart.
KEYS = {"gpu": (4096, 32768), "cpu": (1024, 6144), "quick": (512, 2048)}
SIZES = (64, 128)
DTYPES = {"cuda": ("bfloat16", "float32"), "cpu": ("float32", "bfloat16")}
PRODUCT = {"gpu": 8192, "cpu": 1024, "quick": 512}
ROUNDS = {"gpu": 5, "cpu": 3, "quick": 2}


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record per dtype and head size."""
    for dtype in DTYPES[device.type]:
        for size in SIZES:
            facts = {"dtype": dtype, "size": size}
            yield attempt(facts, partial(coefficients, device, scale, dtype, size))


def coefficients(device: torch.device, scale: str, dtype: str, size: int) -> Record:
    """Seconds, as `Costs` names them, from interleaved rounds."""
    few, many = (chosen_layer(device, keys, dtype, size) for keys in KEYS[scale])
    index = many.index(many.lines())
    matrix = torch.randn(PRODUCT[scale], PRODUCT[scale], device=device, dtype=getattr(torch, dtype))
    works: dict[str, Callable[[], object]] = {
        "dense": many.problem.dense,
        "sparse": lambda: many.attend(index),
        "few": lambda: few.index(few.lines()),
        "many": lambda: many.index(many.lines()),
        "product": lambda: matrix @ matrix,
    }
    seconds = interleaved(works, Clock(device), ROUNDS[scale])
    low, high = KEYS[scale]
    cells = cells_of(index)  # by line head, of which a query head may share one
    heads = LAYERS[device.type].heads
    rows = [sample_size(keys) for keys in (low, high)]
    pairs = [heads * count * keys for count, keys in zip(rows, (low, high), strict=True)]
    slope = max(0.0, seconds["many"] - seconds["few"]) / (pairs[1] - pairs[0])
    # Never below nothing, which noise could say: then all of it is in proportion.
    slope = slope or seconds["many"] / pairs[1]
    return {
        "dense_cell": seconds["dense"] / (heads * many.problem.entries),
        "sparse_cell": seconds["sparse"] / (cells * heads / index.dense.shape[0]),
        "sampled_pair": slope,
        "fixed": max(seconds["few"] - slope * pairs[0], 1e-9),
        "product": seconds["product"] / PRODUCT[scale] ** 3,
        "density": cells / (index.dense.shape[0] * many.problem.entries),
        "choosing_of_dense": seconds["many"] / seconds["dense"],
    }


def interleaved(works: dict[str, Callable[[], object]], clock: Clock, rounds: int) -> dict[str, float]:
    """Median seconds of each, all in turn in every round."""
    variants = [Variant(name, None, work) for name, work in works.items()]
    timings = time_rounds(variants, warm_up(variants, 0, 0, clock), rounds, clock)
    return {name: statistics.median(t.ms for t in timings if t.variant == name) / 1e3 for name in works}


def chosen_layer(device: torch.device, keys: int, dtype: str, size: int) -> SparseLayer:
    """A layer with lines to choose, as many rows as keys, under the shipped profile."""
    layer = replace(LAYERS[device.type], size=size, dtype=dtype)
    problem = planted_problem(layer, keys, keys, device, 0)
    return SparseLayer(problem, line_policy(load_profile("loopserve-prefill").prefill))
