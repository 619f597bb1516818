"""A comparison as a table: every figure of every profile, before and now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from loopserve_cli.measure.compare.change import Beside, Change, Figure
from loopserve_cli.measure.compare.comparison import Comparison
from loopserve_cli.measure.compare.lines import changed, keys_changed, kl_changed
from loopserve_cli.measure.figures import fine, mebibytes, number, percent, times, whole
from loopserve_cli.output import new_table

HEAD = ("profile", "figure", "before", "now", "change")


def comparison_table(comparison: Comparison) -> Table:
    """A row for each figure that one of the runs has, profile under profile."""
    table = new_table()
    table.add_column(HEAD[0], overflow="fold")
    table.add_column(HEAD[1], no_wrap=True)
    for name in HEAD[2:4]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(HEAD[4])
    for row in rows(comparison):
        table.add_row(*map(Text, row))
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """The same as a table of Markdown, which reads in an issue or a README as it is."""
    lines = [HEAD, ("---", "---", "---:", "---:", "---"), *rows(comparison)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def rows(comparison: Comparison) -> Iterator[Sequence[str]]:
    """The cells of every row; a profile stands in its first alone."""
    for change in comparison.changes:
        name = change.profile
        for row in _of(change, comparison.beside):
            yield (name, *row)
            name = ""


def _of(change: Change, beside: str | None) -> Iterator[Sequence[str]]:
    yield from _row("first token ms", change.ttft_ms, number, changed(change.first_token))
    yield from _beside(f"  beside {beside}", change.first_token_beside)
    yield from _row("next tokens ms", change.tpot_ms, number, changed(change.next_tokens))
    yield from _beside(f"  beside {beside}", change.next_tokens_beside)
    yield from _row("KV MiB", change.kv_bytes, mebibytes, "")
    yield from _row("keys read", change.keys_read, whole, keys_changed(change.keys))
    yield from _row("KL", change.kl_mean, fine, kl_changed(change.kl))
    yield from _row("agreement %", change.agreement, percent, "")
    if change.answers is not None:
        yield "answers", "", "", f"{change.changed_answers:,} of {change.answers:,} changed"
    if change.failed.before or change.failed.now:
        yield from _row("failed turns", change.failed, whole, "")


def _row(name: str, figure: Figure, show: Callable[[float | None], str], change: str) -> Iterator[Sequence[str]]:
    if figure.before is not None or figure.now is not None:
        yield name, show(figure.before), show(figure.now), change


def _beside(name: str, beside: Beside | None) -> Iterator[Sequence[str]]:
    if beside is not None:
        yield name, times(beside.before), times(beside.now), changed(beside.change)
