"""What each head of a turn's prefill computed, from the figures of its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.heads import HeadFigures
from loopserve_cli.policies.prefill.report import Call, choices_on_host


@dataclass(slots=True)
class _Sums:
    """One head's entries and rows, over the calls that it was in."""

    executed: float = 0.0
    causal: float = 0.0
    covered: float = 0.0
    rows: float = 0.0

    @property
    def coverage(self) -> float | None:
        """The mean over the rows; None where it was not measured in some call (NaN)."""
        return None if self.covered != self.covered else self.covered / self.rows


def head_figures(calls: Sequence[Call]) -> HeadFigures | None:
    """The figures of every head; None where none left anything out. Waits for the devices."""
    found = choices_on_host(calls)
    if not any(bool((1 - choice[0]).any()) for choice in found.values()):
        return None
    sums: dict[int, dict[int, _Sums]] = {}
    for call in calls:
        heads, of_layer = call.query_heads, sums.setdefault(call.layer, {})
        dense, entries, coverage = ([], [], []) if call not in found else (row.tolist() for row in found[call][:3])
        for place, head in enumerate(heads):
            own = of_layer.setdefault(head, _Sums())
            plan = place * len(dense) // len(heads)
            own.executed += entries[plan] if dense else call.causal
            own.covered += call.new * (1.0 if not dense or dense[plan] else coverage[plan])
            own.causal += call.causal
            own.rows += call.new
    ordered = {layer: [heads[head] for head in sorted(heads)] for layer, heads in sorted(sums.items())}
    return HeadFigures(
        tuple(ordered),
        tuple(tuple(head.executed / head.causal for head in heads) for heads in ordered.values()),
        tuple(tuple(head.coverage for head in heads) for heads in ordered.values()),
    )
