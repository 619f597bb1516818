"""One shape, n rows over N keys: everything that runs on it, prepared, warmed up and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.kernels.dense import dense_candidates, pick_baseline
from loopserve_cli.bench.kernels.flex import NO_CPU, compiled_flex, flex_call, flex_failures
from loopserve_cli.bench.kernels.made import make_lines, widened
from loopserve_cli.bench.kernels.problem import Problem, disagreement
from loopserve_cli.bench.kernels.variant import ATTEND, CHOOSE, DENSE, FLEX, INDEX, OWN_DENSE, Variant
from loopserve_cli.policies.prefill import PrefillPolicy
from loopserve_kernels.index import Index, build_index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash


@dataclass(frozen=True, slots=True)
class MadeSet:
    """A line set that was made: entries executed / causal entries, over all heads and of the extreme ones; lines."""

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
    made: Sequence[MadeSet]
    baseline: str
    tried: Mapping[str, float | str]
    flex: str | None  # why FlexAttention is not there; None when it is
    first_ms: Mapping[str, float]


def prepare(
    problem: Problem,
    densities: Sequence[float],
    policy: PrefillPolicy,
    flex_refused: str | None,
    seed: int,
    clock: Clock,
) -> Prepared:
    """All variants of a shape. FlexAttention joins on CUDA unless `flex_refused` says why not.

    What `policy` chooses is timed and thrown away: made-up tensors have no lines worth choosing. What is executed was
    made to its density, and is padded as wide as a choice, so that building its index costs what it does in use.
    """
    rows, keys, device = problem.rows, problem.keys, problem.query.device
    heads, _, size = problem.query.shape
    shape = block_shape(size, problem.query.dtype, device)
    first_ms: dict[str, float] = {}
    chosen, first_ms[CHOOSE] = clock.first(lambda: policy.lines(problem.query, problem.key, problem.scaling, shape[0]))
    assert chosen is not None
    sets, indices, variants = [], [], []
    for density in densities:
        made = make_lines(heads, rows, keys, density, shape, seed, device)
        lines = widened(made.lines, chosen.vertical.shape[1], keys)
        index = build_index(lines, keys, *shape)
        indices.append(index)
        counts = [float(count.double().mean()) for count in (lines.vertical_count, lines.slash_count)]
        reached = made.density
        sets.append(MadeSet(density, float(reached.mean()), float(reached.min()), float(reached.max()), *counts))
        variants.append(Variant(INDEX, density, lambda lines=lines: build_index(lines, keys, *shape)))  # type: ignore[misc]
        variants.append(Variant(ATTEND, density, _attend(problem, index)))
    own_dense = _attend(problem, replace(indices[0], dense=torch.ones_like(indices[0].dense)))
    answer, first_ms[OWN_DENSE] = clock.first(own_dense)
    baseline = pick_baseline(dense_candidates(problem), answer, clock)
    flex, why = _flex_variants(problem, densities, indices, flex_refused, clock, first_ms)
    common = [
        Variant(DENSE, None, baseline.attend),
        Variant(OWN_DENSE, None, own_dense),
        Variant(CHOOSE, None, lambda: policy.lines(problem.query, problem.key, problem.scaling, shape[0])),
    ]
    return Prepared([*common, *variants, *flex], sets, baseline.name, baseline.tried, why, first_ms)


def _attend(problem: Problem, index: Index) -> Callable[[], Tensor]:
    return lambda: vertical_slash(problem.query, problem.key, problem.value, index, problem.scaling)


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
        wrong = disagreement(_attend(problem, indices[0])(), answer)
    except flex_failures() as error:
        return [], f"FlexAttention: n/a: {str(error).strip().partition(chr(10))[0]}"
    if wrong is not None:
        return [], f"FlexAttention: n/a: {wrong}"
    return [Variant(FLEX, density, call) for density, call in zip(densities, calls, strict=True)], None
