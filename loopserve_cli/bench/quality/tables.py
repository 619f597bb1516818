"""The tables of quality, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from loopserve_cli.bench.quality.questions import HEADLINE, OTHERS
from loopserve_cli.demo.planted import THIRDS
from loopserve_cli.output import new_table, titled

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from loopserve_cli.bench.quality.accuracy import Tally
    from loopserve_cli.bench.quality.combination import Combination
    from loopserve_cli.bench.quality.density import HeadDensity
    from loopserve_cli.bench.quality.recall import Recall

HEAD = ("profile", "tokens", "budget")


def recall_tables(results: Mapping[tuple[str, int], Recall]) -> list[Group]:
    """Exact answers about facts by where they stand, then by kind of question: a row per profile and length."""
    facts = folding("profile", "tokens", "dia-\nlogues", "asked", "right", *THIRDS)
    kinds = folding("profile", "tokens", *HEADLINE, *OTHERS)
    for (profile, length), r in results.items():
        head = (profile, f"{length:,}")
        facts.add_row(*head, str(len(r.tokens)), str(r.headline.asked), *map(str, (r.headline, *r.thirds.values())))
        kinds.add_row(*head, *map(str, r.kinds.values()))
    return [
        titled("facts answered exactly right (95% interval)", facts),
        titled("the same by kind of question", kinds),
    ]


def density_table(results: Mapping[int, Sequence[HeadDensity]], alpha: float) -> Group:
    """Densities, one row per length and layer, and one for all heads."""
    shares, counts = ("entries", "lines", "cheapest", "coverage"), ("verticals", "slashes")
    table = folding("tokens", "layer", *shares, *counts, "lines by head")
    for length, heads in results.items():
        groups = {str(layer): [h for h in heads if h.layer == layer] for layer in sorted({h.layer for h in heads})}
        for name, group in {**groups, "all": heads}.items():
            cells = [f"{fmean(getattr(h, share) for h in group):.1%}" for share in shares]
            cells += [f"{fmean(getattr(h, count) for h in group):.0f}" for count in counts]
            by_head = " ".join(f"{h.lines:.1%}" for h in group) if name != "all" else ""
            table.add_row(f"{length:,}", name, *cells, by_head, end_section=name == "all")
    return titled(f"density at alpha {alpha:g}", table)


def compression_tables(found: Sequence[Combination], full: Callable[[int], Combination | None]) -> list[Group]:
    """Facts by where they stand and by turn, the other kinds of question, and how much of the answers was left out."""
    numbers = sorted({turn for c in found for turn in c.turns})
    facts = folding(*HEAD, "asked", "right", *THIRDS)
    turns = folding(*HEAD, *(f"turn {turn}" for turn in numbers))
    others = folding(*HEAD, *OTHERS, "long")
    left_out = folding(*HEAD, "as full", "tokens from chosen keys", "choices again", "keys read")
    for c in found:
        head = (c.name, f"{c.length:,}", "" if c.budget is None else str(c.budget))
        reference = full(c.length)
        same = None if reference is None else c.same_as(reference).share
        again = str(sum(answer.reselections for answer in c.answers))
        facts.add_row(
            *head, str(c.headline.asked), str(c.headline), *(percent(tally.share) for tally in c.thirds.values())
        )
        turns.add_row(*head, *(percent(c.turns[turn].share) if turn in c.turns else "" for turn in numbers))
        others.add_row(*head, *(counted(tally) for tally in (*(c.kinds[kind] for kind in OTHERS), c.long)))
        left_out.add_row(*head, percent(same), percent(c.compressed_share), again, percent(c.read_share))
    return [
        titled("facts answered exactly right (95% interval)", facts),
        titled("the same by the turn after which they were asked", turns),
        titled("other questions answered exactly right", others),
        titled("how much of the answers was decoded from chosen keys", left_out),
    ]


def counted(tally: Tally) -> str:
    """The share right, and of how many."""
    return f"{percent(tally.share)} of {tally.asked}"


def percent(share: float | None) -> str:
    """A share of a few dozen answers in whole percent; n/a where nothing was asked."""
    return "n/a" if share is None else f"{share:.0%}"


def folding(*heads: str) -> Table:
    """A table of which only names stay in one line where the terminal is narrow."""
    table = new_table(heads)
    for column in table.columns:
        column.no_wrap, column.overflow = column.header == "profile", "fold"
    return table
