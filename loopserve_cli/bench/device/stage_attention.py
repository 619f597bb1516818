"""Attention in TFLOP/s by configuration: lines that are bands, slashes or verticals, dense attention beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.device.cells import cells_of
from loopserve_cli.bench.device.timing import median_ms
from loopserve_cli.bench.kernels.dense import dense_candidates
from loopserve_cli.bench.kernels.options import LAYERS, Layer
from loopserve_cli.bench.kernels.problem import Problem, random_problem
from loopserve_kernels.choice import Lines, fixed_lines
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import causal_entries
from loopserve_kernels.index import make_index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash

SHAPES = {
    "gpu": ((32768, 32768), (8192, 131072), (131072, 131072)),
    "cpu": ((4096, 4096), (1024, 16384)),
    "quick": ((1024, 1024),),
}
SIZES = {"gpu": (64, 128), "cpu": (64, 128), "quick": (64,)}
DTYPES = {"cuda": ("bfloat16",), "cpu": ("float32", "bfloat16")}
KINDS = ("band", "slashes", "verticals")
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
    batch = problem.query[None], problem.key[None], problem.value[None]
    ways = {"dense_attention": lambda: dense_attention(*batch, problem.scaling)}
    if problem.query.device.type != "cpu":
        ways |= dense_candidates(problem)
    for name, attend in ways.items():
        cells = layer.heads * causal_entries(problem.rows, problem.keys)
        yield attempt(facts(problem, layer, name), partial(timed, attend, problem.query.device, cells, layer.size))


def sparse(problem: Problem, layer: Layer) -> Iterator[Record]:
    """The sparse kernel on each kind of lines, with blocks of one height and, where it has them, of two."""
    for kind in KINDS:
        for wide in (False, True) if problem.query.device.type != "cpu" else (False,):
            name = f"{kind}, wide" if wide else kind
            yield attempt(facts(problem, layer, name), partial(executed, problem, layer, kind, wide))


def executed(problem: Problem, layer: Layer, kind: str, wide: bool) -> Record:
    """One kind's time, its density and rate."""
    query, device = problem.query, problem.query.device
    shape = block_shape(layer.size, query.dtype, device)
    lines = made(kind, layer.heads, problem.rows, problem.keys, shape[0], device)
    lines = replace(lines, wide=torch.full_like(lines.dense, wide))
    index = make_index(lines, problem.rows, problem.keys, *shape)
    cells = cells_of(index)

    def attend() -> Tensor:
        return vertical_slash(query, problem.key, problem.value, index, problem.scaling)

    density = cells / (layer.heads * causal_entries(problem.rows, problem.keys))
    return {"density": density, "block": list(shape), **timed(attend, device, cells, layer.size)}


def made(kind: str, heads: int, rows: int, keys: int, rows_per_block: int, device: torch.device) -> Lines:
    """About DENSITY of the cells under one kind of lines, others in every head; offset 0 is always in."""
    generator = torch.Generator().manual_seed(0)
    columns = max(1, int(DENSITY * causal_entries(rows, keys) / rows))
    count = max(1, columns // rows_per_block) if kind == "slashes" else columns
    if kind == "band":
        chosen = torch.arange(columns).expand(heads, -1)
    else:
        # Near offsets meet more rows, as early keys do: the nearer half gives about the density asked for.
        drawn = [torch.randperm(max(1, keys // 2), generator=generator)[:count] for _ in range(heads)]
        chosen = torch.stack(drawn)
    none = torch.full((heads, 1), keys)
    vertical, slash = (chosen, none) if kind == "verticals" else (none, chosen)
    return fixed_lines(vertical.to(device), slash.to(device), keys)


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
