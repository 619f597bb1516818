"""Attention in TFLOP/s by configuration: lines that are bands, slashes or verticals, dense attention beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.kernels.clock import median_ms
from loopserve_cli.bench.kernels.dense import dense_candidates
from loopserve_cli.bench.kernels.line_sets import KINDS, lines_of_kind
from loopserve_cli.bench.kernels.options import LAYERS, Layer
from loopserve_cli.bench.kernels.problem import Problem, random_problem
from loopserve_cli.bench.kernels.sparse_layer import cells_of
from loopserve_kernels.index import make_index

SHAPES = {
    "gpu": ((32768, 32768), (8192, 131072), (131072, 131072)),
    "cpu": ((4096, 4096), (1024, 16384)),
    "quick": ((1024, 1024),),
}
SIZES = {"gpu": (64, 128), "cpu": (64, 128), "quick": (64,)}
DTYPES = {"cuda": ("bfloat16",), "cpu": ("float32", "bfloat16")}
DENSITY = 0.1
# Of a shape as large as this only the last head size is timed.
LARGE = 2**33


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """For every shape, dtype and head size: each dense way, then each kind of lines."""
    for rows, keys in SHAPES[scale]:
        for dtype in DTYPES[device.type][: 1 if scale == "quick" else None]:
            sizes = SIZES[scale] if rows * keys < LARGE else SIZES[scale][-1:]
            for size in sizes:
                layer = replace(LAYERS[device.type], size=size, dtype=dtype)
                problem = random_problem(layer, rows, keys, device, 0)
                yield from dense(problem, layer)
                yield from sparse(problem, layer)


def dense(problem: Problem, layer: Layer) -> Iterator[Record]:
    """The product's own dense attention, and each library kernel held to."""
    ways = {"dense_attention": problem.dense}
    if problem.query.device.type != "cpu":
        ways |= dense_candidates(problem)
    cells = layer.heads * problem.entries
    for name, attend in ways.items():
        yield attempt(facts(problem, layer, name), partial(timed, attend, problem.query.device, cells, layer.size))


def sparse(problem: Problem, layer: Layer) -> Iterator[Record]:
    """The sparse kernel on each kind of lines, with blocks of one height and, where it has them, of two."""
    for kind in KINDS:
        for wide in (False, True) if problem.query.device.type != "cpu" else (False,):
            name = f"{kind}, wide" if wide else kind
            yield attempt(facts(problem, layer, name), partial(executed, problem, layer, kind, wide))


def executed(problem: Problem, layer: Layer, kind: str, wide: bool) -> Record:
    """One kind's time, its density and rate."""
    device = problem.query.device
    lines = lines_of_kind(kind, layer.heads, problem.rows, problem.keys, DENSITY, problem.blocks[0], device)
    lines = replace(lines, wide=torch.full_like(lines.dense, wide))
    index = make_index(lines, problem.rows, problem.keys, *problem.blocks)
    cells = cells_of(index)
    facts = {"density": cells / (layer.heads * problem.entries), "block": list(problem.blocks)}
    return facts | timed(lambda: problem.sparse(index), device, cells, layer.size)


def facts(problem: Problem, layer: Layer, name: str) -> Record:
    """What is timed."""
    return {
        "rows": problem.rows,
        "keys": problem.keys,
        "heads": layer.heads,
        "size": layer.size,
        "dtype": layer.dtype,
        "way": name,
    }


def timed(attend: Callable[[], object], device: torch.device, cells: int, size: int) -> Record:
    """The time, and the rate of the two products over the cells that are computed."""
    ms = median_ms(attend, device)
    return {"ms": ms, "cells": cells, "tflops": 4 * size * cells / ms / 1e9}
