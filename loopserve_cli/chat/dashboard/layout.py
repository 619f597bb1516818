"""Which size fits the terminal, at every drawing anew."""

from __future__ import annotations

from enum import Enum

from loopserve_cli.chat.dashboard.figures import Figures
from loopserve_cli.chat.dashboard.line import Line, Marks, sized, trimmed
from loopserve_cli.chat.dashboard.strip import one_line, strip, title
from loopserve_cli.chat.dashboard.wide import wide

# Columns and rows from which on a size fits.
STRIP_FROM = 60, 16
WIDE_FROM = 110, 28
FULL_FROM = 160, 44


class Size(Enum):
    """How much of a terminal the dashboard takes."""

    LINE = "one line"
    STRIP = "at most six lines"
    WIDE = "a strip and a column at its right"
    FULL = "as wide, with more history"


def size_for(columns: int, rows: int) -> Size:
    """The largest that fits."""
    for size, (least_columns, least_rows) in (
        (Size.FULL, FULL_FROM),
        (Size.WIDE, WIDE_FROM),
        (Size.STRIP, STRIP_FROM),
    ):
        if columns >= least_columns and rows >= least_rows:
            return size
    return Size.LINE


def lines(figures: Figures, columns: int, rows: int, marks: Marks) -> list[Line]:
    """The dashboard for a terminal of that size. No line is as wide as the terminal, so none is wrapped by it."""
    size, most = size_for(columns, rows), columns - 1
    if size is Size.LINE:
        return [one_line(figures, most, marks)]
    head = title(figures, most, marks)
    if size is Size.STRIP:
        return [_within(one, most) for one in (head, *strip(figures, most, marks))]
    body = wide(figures, most, marks, more=size is Size.FULL)
    return [_within(one, most) for one in (head, *body)]


def _within(line: Line, columns: int) -> Line:
    return trimmed(sized(line, columns))
