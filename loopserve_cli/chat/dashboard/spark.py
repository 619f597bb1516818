"""Bars and sparklines, made of characters."""

from __future__ import annotations

from collections.abc import Sequence

from loopserve_cli.chat.dashboard.line import BAR, DIM, Line, Marks

MOST_SHARE = 1.0


def bar(share: float | None, columns: int, marks: Marks) -> Line:
    """A bar of so many columns, filled to a share; empty where that is unknown."""
    filled = 0 if share is None else round(max(0.0, min(share, MOST_SHARE)) * columns)
    return ((BAR, marks.full * filled), (DIM, marks.empty * (columns - filled)))


def spark(values: Sequence[float], columns: int, marks: Marks) -> Line:
    """The newest values, one a column, from the least of them to the greatest; equal ones are all low."""
    shown = list(values)[-columns:] if columns > 0 else []
    if not shown:
        return ()
    low, high = min(shown), max(shown)
    steps = len(marks.levels) - 1
    places = [round((one - low) / (high - low) * steps) if high > low else 0 for one in shown]
    return ((BAR, "".join(marks.levels[place] for place in places)),)
