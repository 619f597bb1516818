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
    """The newest values, one a column, from zero to the greatest of them: what hardly changes looks even."""
    shown = list(values)[-columns:] if columns > 0 else []
    if not shown:
        return ()
    high, steps = max(shown), len(marks.levels) - 1
    places = [round(max(one, 0.0) / high * steps) if high > 0 else 0 for one in shown]
    return ((BAR, "".join(marks.levels[place] for place in places)),)
