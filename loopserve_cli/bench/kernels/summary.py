"""What the timings say: medians with their spread, ratios taken within a round, each beside its ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopserve_cli.bench.kernels.grid import Measured
from loopserve_cli.bench.kernels.variant import ATTEND, CHOOSE, DENSE, FLEX, INDEX, OWN_DENSE, Timing
from loopserve_cli.measure.spread import spread

Times = Mapping[tuple[str, float | None], float]


def summarise(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row for each shape and density, in the order of the shapes; shapes that were skipped have none."""
    rows = []
    for shape in measured:
        if shape.prepared is None:
            continue
        for made in shape.prepared.line_sets:
            row = {"rows": shape.rows, "keys": shape.keys, "density": made.asked, "executed": made.executed}
            rows.append(row | _cell(by_round(shape.timings), made.asked, made.executed))
    return rows


def by_round(timings: Sequence[Timing]) -> list[Times]:
    """Each round's milliseconds, by variant and density."""
    rounds: dict[int, dict[tuple[str, float | None], float]] = {}
    for timing in timings:
        rounds.setdefault(timing.round, {})[timing.variant, timing.density] = timing.ms
    return [rounds[number] for number in sorted(rounds)]


def _cell(rounds: Sequence[Times], density: float, executed: float) -> dict[str, Any]:
    """Times and ratios of one density; `executed` is what its lines really compute.

    The ceilings: attention cannot gain more than 1 / executed, the whole no more than if attention took just that
    share of the dense time. `own_efficiency` is that share of our own kernel's dense time, over what it took.
    """
    has_flex = (FLEX, density) in rounds[0]
    each = []
    for times in rounds:
        dense, own, choose = (times[name, None] for name in (DENSE, OWN_DENSE, CHOOSE))
        index, attend = times[INDEX, density], times[ATTEND, density]
        total = choose + index + attend
        each.append(
            {
                "dense_ms": dense,
                "own_dense_ms": own,
                "choose_ms": choose,
                "index_ms": index,
                "attend_ms": attend,
                "total_ms": total,
                "flex_ms": times[FLEX, density] if has_flex else None,
                "attend_gain": dense / attend,
                "attend_ceiling": 1 / executed,
                "total_gain": dense / total,
                "total_ceiling": dense / (choose + index + executed * dense),
                "own_dense_gain": dense / own,
                "own_efficiency": executed * own / attend,
                "choosing_share": (choose + index) / dense,
                "flex_ratio": times[FLEX, density] / attend if has_flex else None,
            }
        )
    return {name: spread(values[name] for values in each) for name in each[0]}
