"""The whole grid, shape by shape, within its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.kernels.options import Grid, Layer
from loopserve_cli.bench.kernels.plan import Plan
from loopserve_cli.bench.kernels.problem import random_problem
from loopserve_cli.bench.kernels.shape import Prepared, prepare
from loopserve_cli.bench.kernels.variant import Timing, WarmUp, round_ms, time_rounds, warm_up
from loopserve_cli.policies.prefill import LinePolicy

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One shape as timed, or why it was not. `rounds` is how many fitted."""

    rows: int
    keys: int
    rounds: int
    skipped: str | None = None
    prepared: Prepared | None = None  # without its calls, which hold the shape's tensors
    warm: list[WarmUp] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    prepare_s: float = 0.0

    def facts(self) -> dict[str, Any]:
        """What a JSON document says of the shape besides its timings."""
        facts: dict[str, Any] = {"rows": self.rows, "keys": self.keys, "rounds": self.rounds, "skipped": self.skipped}
        if self.prepared is not None:
            facts |= {
                "baseline": self.prepared.baseline,
                "dense_tried": dict(self.prepared.tried),
                "flex": self.prepared.flex,
                "line_sets": [asdict(made) for made in self.prepared.line_sets],
                "prepare_s": self.prepare_s,
                "first_ms": dict(self.prepared.first_ms),
                "warm_up": [asdict(first) for first in self.warm],
            }
        return facts


@dataclass(frozen=True, slots=True)
class GridRun:
    """What all shapes have in common."""

    layer: Layer
    grid: Grid
    policy: LinePolicy
    device: torch.device
    seed: int
    say: Say

    def measure(self) -> list[Measured]:
        """Every shape of the grid, in order, timed or refused."""
        plan, found = Plan(self.grid), []
        for place, (rows, keys) in enumerate(plan.shapes):
            why = plan.refusal(place)
            if why is not None:
                self.say(f"{rows:,} rows over {keys:,} keys: left out, {why}")
                found.append(Measured(rows, keys, 0, skipped=why))
                continue
            found.append(self._shape(plan, place))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    def _shape(self, plan: Plan, place: int) -> Measured:
        """Prepare, warm up and time one shape."""
        rows, keys = plan.shapes[place]
        name, clock = f"{rows:,} rows over {keys:,} keys", Clock(self.device)
        self.say(f"{name}: preparing and warming up")
        share, began = plan.share_s(place), time.perf_counter()
        problem = random_problem(self.layer, rows, keys, self.device, self.seed)
        prepared = prepare(problem, self.grid.densities, self.policy, plan.flex_refusal(place), self.seed, clock)
        warm = warm_up(prepared.variants, rows, keys, clock)
        took, round_s = time.perf_counter() - began, round_ms(warm, clock) / 1e3
        rounds = plan.fitting_rounds(round_s, share - took)
        plan.learn(place, took, round_s, prepared.flex)
        self.say(f"{name}: {rounds} {'round' if rounds == 1 else 'rounds'} of {round_s:.1f} s")
        timings = time_rounds(prepared.variants, warm, rounds, clock)
        return Measured(rows, keys, rounds, None, replace(prepared, variants=()), warm, timings, took)
