"""Tables and documents on stdout, as every measuring command writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from loopserve_cli.printable import printable

PLAIN_WIDTH = 160
# Columns of this name hold words, the others figures.
WORDS = ("", "stage", "what", "status", "part", "way", "per", "profile", "setting", "dtype")


class Ranked(Protocol):
    """What stands in a column; it gives way before what has a lower rank."""

    @property
    def rank(self) -> int:
        """0 stays in any case."""


Giving = TypeVar("Giving", bound=Ranked)


class CleanConsole(Console):
    """A console on which no text acts on the terminal and no link hides its target; Rich's own control codes pass.

    It reads no markup, no :emoji: and no numbers to colour: names and texts of files are printed as they are.
    """

    def __init__(self, **options: Any) -> None:
        """Rich's options."""
        super().__init__(**{"markup": False, "highlight": False, "emoji": False} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of the renderable, their text cleaned."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _clean(segment)


def _clean(segment: Segment) -> Segment:
    style = segment.style
    return Segment(printable(segment.text), style.update_link(None) if style is not None and style.link else style)


def output_console() -> Console:
    """Rich on stdout; a pipe or file gets plain text, wide enough that no table is folded."""
    return CleanConsole(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def teller(console: Console | None = None) -> Callable[[str], None]:
    """Says in a dim line what goes on, on stderr or another console."""
    aside = CleanConsole(stderr=True) if console is None else console
    return lambda text: aside.print(text, style="dim", markup=False, soft_wrap=True)


def new_table(
    heads: Iterable[str] = (), left: Container[str] = WORDS, rows: Iterable[Iterable[str | Text]] = ()
) -> Table:
    """A table in the common look: columns of figures on the right, never folded, those with words on the `left`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        if head in left:
            table.add_column(head, overflow="fold")
        else:
            table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def width_of(table: Table, console: Console) -> int:
    """How wide a table is that nothing narrows."""
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def fitting(columns: Sequence[Giving], build: Callable[[Sequence[Giving]], Table], console: Console) -> Table:
    """The table of those columns that the console has room for: the greatest rank gives way first, rank 0 never."""
    shown = list(columns)
    while width_of(build(shown), console) > console.width and any(column.rank for column in shown):
        shown.remove(max(shown, key=lambda column: column.rank))
    return build(shown)


def titled(title: str, table: Table) -> Group:
    """The table under a line that is never folded to the table's width."""
    return Group(Text(title, style="bold"), table)


def print_document(whole: Mapping[str, Any]) -> None:
    """One JSON document on one line, in ASCII: right whatever the output's encoding."""
    json.dump(whole, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
