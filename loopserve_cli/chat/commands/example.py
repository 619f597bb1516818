"""The command that gives a newcomer the next line to try."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.newcomer import DEMO
from loopserve_cli.chat.session import Session
from loopserve_cli.demo.examples import EXAMPLES
from loopserve_cli.errors import UsageError

LIST = "list"


def example(session: Session, argument: str) -> None:
    """Put the next example into the input line, from the first again after the last; or list them all."""
    if session.model != DEMO:
        raise UsageError(f"/example is for the demo model; {session.model} understands what you write")
    if argument == LIST:
        session.data(_table(session.out.width))
        return
    if argument:
        raise UsageError(f"/example {argument!r}: give {LIST}, or nothing for the next line")
    one = EXAMPLES[session.examples % len(EXAMPLES)]
    session.examples += 1
    session.next_input = one.line
    session.note(f"{one.shows}; Enter sends it")


def _table(width: int) -> Table:
    """The examples, each whole in its line; beside them what they show, where there is room for it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    explained = width >= max(len(one.line) for one in EXAMPLES) + 2 + max(len(one.shows) for one in EXAMPLES)
    for one in EXAMPLES:
        table.add_row(Text(one.line, no_wrap=True), *([Text(one.shows, style="dim")] if explained else []))
    return table


def example_choices(_session: Session, before: list[str]) -> Sequence[str]:
    """Completions: to list them."""
    return () if before else (LIST,)
