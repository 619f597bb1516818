"""The rules of a choice of lines."""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVES = ("lines", "optimal", "latency")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a choice must reach and may not leave out."""

    alpha: float = 0.95  # share of attention mass to cover; 1 is dense
    candidates: int = 4096  # lines ranked per head; a head that needs more is dense
    sinks: int = 4  # first keys, always in
    local: int = 64  # nearest offsets, always in; at least offset 0, without which a row could be empty
    objective: str = "lines"
    rows_per_block: int = 64  # what "latency" takes for the height of a slash tile
    wide: bool = False  # whether blocks of twice the rows are to be had
    most_columns: float = float("inf")  # columns per row of dense attention: "latency" chooses nothing dearer

    def __post_init__(self) -> None:
        """Assert the ranges."""
        assert 0 < self.alpha <= 1 and self.candidates > 0 and self.sinks >= 0 and self.local >= 1
        assert self.objective in OBJECTIVES, self.objective
