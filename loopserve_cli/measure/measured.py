"""A turn that was measured: its record, and the ids that it answered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.heads import HeadFigures
from loopserve_cli.stats import TurnRecord


@dataclass(frozen=True, slots=True)
class Measured:
    """A turn's record with the ids of its output tokens, and what its prefill's heads computed where that is kept."""

    record: TurnRecord
    output_ids: tuple[int, ...] = ()
    heads: HeadFigures | None = None


def share_equal(left: Sequence[int], right: Sequence[int]) -> float | None:
    """The share of places that hold the same token, over the longer of the two; None when both are empty."""
    longer = max(len(left), len(right))
    if not longer:
        return None
    return sum(a == b for a, b in zip(left, right, strict=False)) / longer
