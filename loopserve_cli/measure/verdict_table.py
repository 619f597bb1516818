"""The verdict as a table: a row for each profile, and as many columns as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from loopserve_cli.measure.figures import bounds, fine, mebibytes, number, times, whole
from loopserve_cli.measure.ratio import Ratio
from loopserve_cli.measure.verdict import Verdict
from loopserve_cli.output import fitting, new_table

LEGEND = "x is {against}'s time over the profile's on the same turn, in brackets its 95% interval"


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of every profile, None where it is unknown.

    The column with the greatest `rank` gives way first, those of rank 0 never. One that `compares` stays empty for the
    profile that the others are compared with.
    """

    name: str
    rank: int
    figure: Callable[[Verdict], str | None]
    compares: bool = False

    def cell(self, verdict: Verdict) -> str:
        """The figure, n/a where it is unknown, or nothing where it would mean nothing."""
        if self.compares and verdict.against is None:
            return ""
        return self.figure(verdict) or number(None)


def _ratio(ratio: Ratio | None) -> str | None:
    return None if ratio is None else f"{times(ratio.ratio)} ({bounds(ratio)})"


def _answers(verdict: Verdict) -> str | None:
    return None if verdict.same_answers is None else f"{verdict.same_answers} of {verdict.answers}"


def _if_known(show: Callable[[float | None], str], value: float | None) -> str | None:
    return None if value is None else show(value)


COLUMNS: tuple[Column, ...] = (
    Column("TTFT ms", 0, lambda v: _if_known(number, v.ttft_ms)),
    Column("first token", 1, lambda v: _ratio(v.first_token), compares=True),
    Column("KV MiB", 0, lambda v: _if_known(mebibytes, v.kv_bytes)),
    Column("next tokens", 2, lambda v: _ratio(v.next_tokens), compares=True),
    Column("KL", 3, lambda v: _if_known(fine, v.kl_mean), compares=True),
    Column("same answers", 4, _answers, compares=True),
    Column("keys read", 5, lambda v: _if_known(whole, v.keys_read)),
    Column("ceiling", 6, lambda v: _if_known(times, v.ceiling), compares=True),
    Column("TPOT ms", 7, lambda v: _if_known(number, v.tpot_ms)),
    Column("keys stored", 8, lambda v: _if_known(whole, v.keys_stored)),
)


def known_columns(verdicts: Sequence[Verdict]) -> list[Column]:
    """Those that some profile has, and those that never give way."""
    return [column for column in COLUMNS if not column.rank or any(map(column.figure, verdicts))]


def verdict_table(verdicts: Sequence[Verdict], console: Console) -> Group:
    """The columns that fit the console, the most important ones, with what a ratio means below."""
    table = fitting(known_columns(verdicts), lambda columns: _table(verdicts, columns), console)
    against = next((verdict.against for verdict in verdicts if verdict.against), None)
    return Group(table, Text(LEGEND.format(against=against) if against else "", style="dim"))


def _table(verdicts: Sequence[Verdict], columns: Sequence[Column]) -> Table:
    def cells(verdict: Verdict) -> list[str | Text]:
        return [Text(verdict.profile), *(column.cell(verdict) for column in columns)]

    heads = ["profile", *(column.name.replace(" ", "\n") for column in columns)]
    return new_table(heads, ("profile",), map(cells, verdicts))


def verdict_markdown(verdicts: Sequence[Verdict]) -> str:
    """All columns that are known, as a table of Markdown, which reads in an issue or a README as it is."""
    columns = known_columns(verdicts)
    rows = [[verdict.profile, *(column.cell(verdict) for column in columns)] for verdict in verdicts]
    lines = [["profile", *(column.name for column in columns)], ["---", *("---:" for _ in columns)], *rows]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    """A cell as Markdown: an upright line in a name would end it."""
    return cell.replace("|", "\\|")
