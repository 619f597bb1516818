"""Tables whose columns give way where the terminal is narrow: the least important first, and no word is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A name over one cell per row. `rank` 0 stays whatever happens; of the others the highest goes first."""

    name: str
    cells: Sequence[str]
    rank: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        """Cells of the terminal that its longest line takes."""
        return max(cell_len(line) for text in (self.name, *self.cells) for line in text.split("\n"))


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit into so many cells, in their order, and the names of those that do not."""
    shown = list(columns)
    while sum(column.width + GAP for column in shown) - GAP > width:
        last = max(shown, key=lambda column: column.rank)
        if not last.rank:
            break
        shown.remove(last)
    return shown, [column.name for column in columns if column not in shown]


def table_of(columns: Sequence[Column]) -> Table:
    """The columns side by side; none is made narrower than its text."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column in columns:
        table.add_column(column.name, justify="left" if column.left else "right", no_wrap=True, min_width=column.width)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def left_out(names: Sequence[str]) -> str | None:
    """A line about columns that gave way, None where none did."""
    return f"a wider terminal also shows: {', '.join(names)}" if names else None
