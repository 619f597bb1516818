"""The tables of `bench turns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loopserve_cli.bench.forms import form_lines
from loopserve_cli.bench.timing import OURS
from loopserve_cli.measure.figures import number
from loopserve_cli.output import new_table, output_console, titled

LEGEND = "median (lowest to highest); a ratio is the other's time over ours in the same round: above 1, ours is faster"


def print_tables(summary: Mapping[str, Any], title: str) -> None:
    """The prompt, the dialogue, and whether all said the same; plain text on a pipe."""
    console = output_console()
    console.print(titled(title, prompt_table(summary["prompt"])))
    if any(row["attention_ms"] for row in summary["prompt"].values()):
        console.print(titled("where the TTFT went, ms", parts_table(summary["prompt"])))
    dialogue = dialogue_table(summary["dialogue"])
    console.print(titled("the same tokens as a growing dialogue: TTFT by turn, ms", dialogue))
    console.print(LEGEND)
    for line in (agreement_line(summary["first_difference"]), *form_lines(summary["generate"])):
        console.print(line)


def prompt_table(rows: Mapping[str, Any]) -> Table:
    """TTFT and TPOT of each variant, their ratios, and, where one chose, its density and the time of choosing."""
    table = new_table()
    table.add_column("")
    chose = any((row["select_ms"] or {}).get("median") for row in rows.values())
    for name in ("TTFT ms", "ratio", "TPOT ms", "ratio", *(("density", "choosing ms") if chose else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for variant, row in rows.items():
        cells = [_spread(row[key]) for key in ("ttft_ms", "ttft_ratio", "tpot_ms", "tpot_ratio")]
        if chose:
            density, choosing = row["density"], row["select_ms"]
            cells += [f"{density['median']:.1%}" if density else "", f"{choosing['median']:,.0f}" if choosing else ""]
        table.add_row(variant, *cells)
    return table


def parts_table(rows: Mapping[str, Any]) -> Table:
    """Attention, choosing and the rest of every variant, and what the first two cost of dense attention.

    "of its share" is attention's time over density times the time of the variant that computes everything.
    """
    table = new_table()
    table.add_column("")
    for name in ("attention", "of its share", "choosing", "of dense", "rest"):
        table.add_column(name, justify="right", no_wrap=True)
    dense = next(
        (
            _median(row, "attention_ms")
            for row in rows.values()
            if _median(row, "density") == 1 and _median(row, "attention_ms")
        ),
        None,
    )
    for name, row in rows.items():
        attention, choosing, density = (_median(row, part) for part in ("attention_ms", "select_ms", "density"))
        share = of_dense = None
        if dense and density is not None and density < 1 and attention is not None and choosing is not None:
            share, of_dense = attention / density / dense, choosing / dense
        table.add_row(
            name,
            number(attention),
            number(None) if share is None else f"{share:.2f}",
            number(choosing),
            number(None) if of_dense is None else f"{of_dense:.1%}",
            number(_median(row, "rest_ms")),
        )
    return table


def dialogue_table(turns: list[Mapping[str, Any]]) -> Table:
    """TTFT by turn of those who keep their cache from turn to turn."""
    table = new_table()
    for name in ("turn", "new", "cached"):
        table.add_column(name, justify="right")
    names = list(turns[0]["variants"])
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
        if name != OURS:
            table.add_column("ratio", justify="right", no_wrap=True)
    for turn in turns:
        ours = turn["variants"][OURS]
        cells = []
        for name in names:
            cells.append(_spread(turn["variants"][name]["ttft_ms"]))
            if name != OURS:
                cells.append(_spread(turn["variants"][name]["ttft_ratio"]))
        table.add_row(str(turn["turn"]), f"{ours['tokens_new']:,}", f"{ours['tokens_cached']:,}", *cells)
    return table


def agreement_line(difference: Mapping[str, Any] | None, reference: str = "ours") -> str:
    """Whether the greedy tokens are the same, in a sentence."""
    if difference is None:
        return "greedy tokens: identical in every round"
    place = f"{difference['task']}, round {difference['round']}, turn {difference['turn']}, token {difference['token']}"
    return f"greedy tokens: NOT identical, {difference['variant']} parts from {reference} first at {place}"


def _median(row: Mapping[str, Any], measure: str) -> float | None:
    return None if row[measure] is None else float(row[measure]["median"])


def _spread(values: Mapping[str, float] | None) -> str:
    if values is None:
        return ""
    return f"{values['median']:,.2f} ({values['low']:,.2f} to {values['high']:,.2f})"
