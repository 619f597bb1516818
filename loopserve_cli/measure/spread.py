"""What several measurements of one thing come to: their median, the lowest and the highest."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping


def median(values: Iterable[float | None]) -> float | None:
    """The median of what is known, None when nothing is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Median, lowest and highest of what is known, None when nothing is."""
    known = sorted(value for value in values if value is not None)
    return {"median": statistics.median(known), "low": known[0], "high": known[-1]} if known else None


def middle(spread: Mapping[str, float] | None) -> float | None:
    """A spread's median; None where there is none."""
    return None if spread is None else spread["median"]
