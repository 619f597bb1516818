"""The tables of recall under compression, for a terminal: facts, and the other kinds with what was left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loopserve_cli.demo.combination import Combination
from loopserve_cli.demo.planted import THIRDS
from loopserve_cli.demo.recall import OTHERS, Tally

if TYPE_CHECKING:
    from rich.console import Console


def print_facts(found: Sequence[Combination], turns: int, console: Console) -> None:
    """The table of exact answers about facts, by where the fact stands and by turn."""
    from rich.table import Table

    table = Table(title="Facts answered exactly right (95% interval)", title_justify="left")
    names = ("tokens", "profile", "budget", "questions", "right", *THIRDS, *(f"turn {n + 1}" for n in range(turns)))
    for name in names:
        table.add_column(name, justify="left" if name == "profile" else "right")
    for c in found:
        cells = [percent(tally) for tally in (*c.thirds.values(), *c.turns.values())]
        table.add_row(*head(c), str(c.headline.asked), str(c.headline), *cells)
    console.print(table)


def print_others(found: Sequence[Combination], full: Callable[[int], Combination | None], console: Console) -> None:
    """The table of the other kinds of question, and of how much of the answers was decoded from chosen keys."""
    from rich.table import Table

    table = Table(title="Other questions, and how much was left out", title_justify="left")
    counts = {kind: found[0].kinds[kind].asked for kind in OTHERS} | {"long": found[0].long.asked}
    for name in ("tokens", "profile", "budget", *(f"{kind} of {n}" for kind, n in counts.items())):
        table.add_column(name, justify="left" if name == "profile" else "right")
    for name in ("as full", "tokens from chosen keys", "choices again", "keys read"):
        table.add_column(name, justify="right")
    for c in found:
        tallies = [*(c.kinds[kind] for kind in OTHERS), c.long]
        reference = full(c.length)
        same = "n/a" if reference is None else percent(c.same_as(reference))
        again = str(sum(answer.reselections for answer in c.answers))
        cells = (*map(percent, tallies), same, rounded(c.compressed_share), again, rounded(c.read_share))
        table.add_row(*head(c), *cells)
    console.print(table)


def head(c: Combination) -> tuple[str, str, str]:
    """What a row of either table begins with."""
    return str(c.length), c.name, "" if c.budget is None else str(c.budget)


def percent(tally: Tally) -> str:
    """The share right, or n/a when nothing was asked."""
    return rounded(tally.right / tally.asked if tally.asked else None)


def rounded(value: float | None) -> str:
    """A share in percent."""
    return "n/a" if value is None else f"{value:.0%}"
