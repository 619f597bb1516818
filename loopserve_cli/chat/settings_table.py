"""All settings as a table, and one of them explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# From here on there is room for a column of ranges; below, they stand behind the meanings.
WIDE = 110
# Here every setting fits a line.
WIDEST = 160
# Below, meanings have lines of their own.
NARROW = 72
CHANGED = "*"
LEGEND = f"{CHANGED} changed since the chat began; /reset puts all of them back, /reset KEY one"


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting as it is shown; `began` is what it was at first, where that differs."""

    key: str
    value: str
    range: str
    meaning: str
    began: str | None = None


@dataclass(frozen=True, slots=True)
class SettingsTable:
    """One row each, whatever the width: meanings are folded at blanks, values and names are whole."""

    rows: Sequence[SettingRow]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and what the mark means where one stands."""
        yield self._stacked() if options.max_width < NARROW else self._table(options.max_width)
        if any(row.began is not None for row in self.rows):
            yield Text(LEGEND, style="dim")

    def _table(self, width: int) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("setting", no_wrap=True)
        table.add_column("value", overflow="fold", max_width=width // 4)
        if width >= WIDEST:
            # Many names are cut short: /set KEY has all of them.
            table.add_column("range", overflow="ellipsis", no_wrap=True, max_width=width // 3)
        elif width >= WIDE:
            table.add_column("range", overflow="fold", max_width=26)
        table.add_column("meaning")
        for row in self.rows:
            meaning = Text(row.meaning, style="dim")
            about = [Text(row.range), meaning] if width >= WIDE else [_with_range(meaning, row)]
            table.add_row(Text(row.key), _value(row), *about)
        return table

    def _stacked(self) -> Group:
        """A line for the value, and what it means below."""
        lines: list[RenderableType] = []
        for row in self.rows:
            meaning = _with_range(Text(row.meaning, style="dim"), row)
            lines += [Text(f"{row.key}  ", style="bold").append_text(_value(row)), Padding(meaning, (0, 0, 0, 2))]
        return Group(*lines)


def _value(row: SettingRow) -> Text:
    changed = row.began is not None
    return Text(f"{row.value} {CHANGED}" if changed else row.value, style="not bold yellow" if changed else "not bold")


def _with_range(meaning: Text, row: SettingRow) -> Text:
    return meaning.append(f" ({row.range})", style="not dim") if row.range else meaning


@dataclass(frozen=True, slots=True)
class SettingExplained:
    """A setting with all that is known of it: `facts` by name, `policies` where it chooses among them."""

    row: SettingRow
    facts: Sequence[tuple[str, str]]
    policies: Sequence[tuple[str, str]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What it is and means, then a line for every fact."""
        row = self.row
        head = Text(f"{row.key} = {row.value}", style="bold")
        if row.began is not None:
            head.append(f"  {CHANGED} the chat began with {row.began}", style="not bold yellow")
        yield head
        if row.meaning:
            yield Text(row.meaning)
        for lines in (self.facts, self.policies):
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True, style="dim")
            table.add_column(overflow="fold")
            for name, text in lines:
                table.add_row(Text(name), Text(text))
            if lines:
                yield table
