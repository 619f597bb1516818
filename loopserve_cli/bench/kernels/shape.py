"""One shape, n rows over N keys: everything that runs on it, prepared, warmed up and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.kernels.dense import dense_candidates, pick_baseline
from loopserve_cli.bench.kernels.flex import NO_CPU, compiled_flex, flex_call, flex_failures
from loopserve_cli.bench.kernels.line_sets import make_lines, widened
from loopserve_cli.bench.kernels.problem import Problem, disagreement
from loopserve_cli.bench.kernels.sparse_layer import SparseLayer
from loopserve_cli.bench.kernels.variant import ATTEND, CHOOSE, DENSE, FLEX, INDEX, OWN_DENSE, Variant
from loopserve_cli.errors import first_line
from loopserve_cli.policies.prefill import LinePolicy
from loopserve_kernels.index import build_index
from loopserve_kernels.tile_index import Index


@dataclass(frozen=True, slots=True)
class LineSetFacts:
    """A line set: entries executed / causal entries, over all heads and of the extreme ones; lines."""

    asked: float
    executed: float
    least: float
    most: float
    verticals: float
    slashes: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A shape ready to be timed. `tried` are the dense ways: milliseconds, or why one is out.

    `first_ms` are the very first calls by the wall clock, with what they compile and tune.
    """

    variants: Sequence[Variant]
    line_sets: Sequence[LineSetFacts]
    baseline: str
    tried: Mapping[str, float | str]
    flex: str | None  # why FlexAttention is not there; None when it is
    first_ms: Mapping[str, float]


def prepare(
    problem: Problem,
    densities: Sequence[float],
    policy: LinePolicy,
    flex_refused: str | None,
    seed: int,
    clock: Clock,
) -> Prepared:
    """All variants of a shape. FlexAttention joins on CUDA unless `flex_refused` says why not.

    What `policy` chooses is timed and thrown away: made-up tensors have no lines worth choosing. What is executed was
    made to its density, and is padded as wide as a choice, so that building its index costs what it does in use.
    """
    rows, keys, shape = problem.rows, problem.keys, problem.blocks
    choose = SparseLayer(problem, policy).lines
    first_ms: dict[str, float] = {}
    chosen, first_ms[CHOOSE] = clock.first(choose)
    sets, indices, variants = [], [], []
    for density in densities:
        made = make_lines(problem.query.shape[0], rows, keys, density, shape, seed, problem.query.device)
        lines = widened(made.lines, chosen.vertical.shape[1], keys)
        index = build_index(lines, keys, *shape)
        indices.append(index)
        counts = [float(count.double().mean()) for count in (lines.vertical_count, lines.slash_count)]
        reached = made.density
        sets.append(LineSetFacts(density, float(reached.mean()), float(reached.min()), float(reached.max()), *counts))
        variants.append(Variant(INDEX, density, partial(build_index, lines, keys, *shape)))
        variants.append(Variant(ATTEND, density, partial(problem.sparse, index)))
    own_dense = partial(problem.sparse, replace(indices[0], dense=torch.ones_like(indices[0].dense)))
    answer, first_ms[OWN_DENSE] = clock.first(own_dense)
    baseline = pick_baseline(dense_candidates(problem), answer, clock)
    flex, why = _flex_variants(problem, densities, indices, flex_refused, clock, first_ms)
    common = [
        Variant(DENSE, None, baseline.attend),
        Variant(OWN_DENSE, None, own_dense),
        Variant(CHOOSE, None, choose),
    ]
    return Prepared([*common, *variants, *flex], sets, baseline.name, baseline.tried, why, first_ms)


def _flex_variants(
    problem: Problem,
    densities: Sequence[float],
    indices: Sequence[Index],
    refused: str | None,
    clock: Clock,
    first_ms: dict[str, float],
) -> tuple[list[Variant], str | None]:
    """FlexAttention at every density, or none and why. Its first call compiles, and must be right."""
    if problem.query.device.type == "cpu":
        return [], NO_CPU
    if refused is not None:
        return [], refused
    try:
        flex = compiled_flex()
        calls = [flex_call(problem, index, flex) for index in indices]
        answer, first_ms[FLEX] = clock.first(calls[0])
        wrong = disagreement(problem.sparse(indices[0]), answer)
    except flex_failures() as error:
        return [], f"FlexAttention: n/a: {first_line(error)}"
    if wrong is not None:
        return [], f"FlexAttention: n/a: {wrong}"
    return [Variant(FLEX, density, call) for density, call in zip(densities, calls, strict=True)], None
