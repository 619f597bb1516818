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

    from loopserve_cli.bench.quality.combination import Combination
    from loopserve_cli.bench.quality.density import HeadDensity
    from loopserve_cli.bench.quality.recall import Recall


def recall_table(results: Mapping[tuple[str, int], Recall]) -> Group:
    """Exact answers, one row per profile and length; 95% intervals in brackets."""
    table = new_table(("profile", "tokens", "dialogues", "questions", "facts", *THIRDS, *HEADLINE, *OTHERS))
    for (profile, length), r in results.items():
        cells = map(str, (r.headline, *r.thirds.values(), *r.kinds.values()))
        table.add_row(profile, f"{length:,}", str(len(r.tokens)), str(r.headline.asked), *cells)
    return titled("answers exactly right (95% interval)", table)


def density_table(results: Mapping[int, Sequence[HeadDensity]], alpha: float) -> Group:
    """Densities, one row per length and layer, and one for all heads."""
    shares, counts = ("entries", "lines", "cheapest", "coverage"), ("verticals", "slashes")
    table = new_table(("tokens", "layer", *shares, *counts, "lines by head"))
    for length, heads in results.items():
        groups = {str(layer): [h for h in heads if h.layer == layer] for layer in sorted({h.layer for h in heads})}
        for name, group in {**groups, "all": heads}.items():
            cells = [f"{fmean(getattr(h, share) for h in group):.1%}" for share in shares]
            cells += [f"{fmean(getattr(h, count) for h in group):.0f}" for count in counts]
            by_head = " ".join(f"{h.lines:.1%}" for h in group) if name != "all" else ""
            table.add_row(f"{length:,}", name, *cells, by_head, end_section=name == "all")
    return titled(f"density at alpha {alpha:g}", table)


def facts_table(found: Sequence[Combination], turns: int) -> Group:
    """Exact answers about facts, by where the fact stands and by turn."""
    names = ("tokens", "profile", "budget", "questions", "right", *THIRDS)
    table = new_table((*names, *(f"turn {turn + 1}" for turn in range(turns))))
    for c in found:
        cells = [percent(tally.share) for tally in (*c.thirds.values(), *c.turns.values())]
        table.add_row(*row_head(c), str(c.headline.asked), str(c.headline), *cells)
    return titled("facts answered exactly right (95% interval)", table)


def others_table(found: Sequence[Combination], full: Callable[[int], Combination | None]) -> Group:
    """The other kinds of question, and how much of the answers was decoded from chosen keys."""
    counts = {kind: found[0].kinds[kind].asked for kind in OTHERS} | {"long": found[0].long.asked}
    kinds = (f"{kind} of {count}" for kind, count in counts.items())
    left_out = ("as full", "tokens from chosen keys", "choices again", "keys read")
    table = new_table(("tokens", "profile", "budget", *kinds, *left_out))
    for c in found:
        tallies = [*(c.kinds[kind] for kind in OTHERS), c.long]
        reference = full(c.length)
        same = None if reference is None else c.same_as(reference).share
        again = str(sum(answer.reselections for answer in c.answers))
        shares = map(percent, (*(tally.share for tally in tallies), same, c.compressed_share))
        table.add_row(*row_head(c), *shares, again, percent(c.read_share))
    return titled("other questions, and how much was left out", table)


def row_head(c: Combination) -> tuple[str, str, str]:
    """What a row of either table of compression begins with."""
    return f"{c.length:,}", c.name, "" if c.budget is None else str(c.budget)


def percent(share: float | None) -> str:
    """A share of a few dozen answers in whole percent; n/a where nothing was asked."""
    return "n/a" if share is None else f"{share:.0%}"
