"""Tables of records: which figure stands in which column, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from loopserve_cli.measure.figures import UNKNOWN, number
from loopserve_cli.measure.spread import middle
from loopserve_cli.output import new_table


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a record, and how it is written; see `fitting` for its rank."""

    head: str
    name: str
    write: Callable[[Any], str]
    rank: int = 0

    def cell(self, record: Mapping[str, Any]) -> str:
        """Empty where the record does not have it, n/a where it is not known."""
        return self.write(record[self.name]) if self.name in record else ""


def records_table(columns: Sequence[Column], records: Iterable[Mapping[str, Any]]) -> Table:
    """A row per record."""
    table = new_table(column.head for column in columns)
    for record in records:
        table.add_row(*(column.cell(record) for column in columns))
    return table


def text(value: Any) -> str:
    """Words; nothing is n/a."""
    return UNKNOWN if value is None else str(value)


def typical(values: Mapping[str, float] | None) -> str:
    """The median of a spread alone."""
    return number(middle(values))
