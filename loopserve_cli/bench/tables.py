"""The tables of `bench turns` with one profile: variants side by side, the dialogue's turns as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loopserve_cli.bench.columns import typical
from loopserve_cli.bench.forms import form_lines
from loopserve_cli.bench.options import OURS
from loopserve_cli.measure.figures import NO_DIFFERENCE, NOTHING_SHOWN, compared, number, ranged, whole
from loopserve_cli.measure.ratio import Ratio
from loopserve_cli.measure.spread import middle
from loopserve_cli.measure.verdict import Verdict
from loopserve_cli.measure.verdict_lines import verdict_lines
from loopserve_cli.output import new_table, output_console, titled, width_of

LEGEND = f"""\
median (lowest to highest); a ratio is the other's time over ours in the same round: above 1, ours is faster
in brackets behind a ratio its 95% interval; {NOTHING_SHOWN} where that holds 1: {NO_DIFFERENCE}"""
BRIEF = f"""\
medians, --json has the spread; a ratio is the other's time over ours in the same round: above 1, ours is faster
{NOTHING_SHOWN} where a ratio's 95% interval holds 1: {NO_DIFFERENCE}"""


def print_tables(summary: Mapping[str, Any], title: str) -> None:
    """The prompt, the dialogue, and whether all said the same; plain text on a pipe."""
    console = output_console()
    brief = any(width_of(table, console) > console.width for table in tables(summary))
    prompt, dialogue = tables(summary, brief)
    console.print(titled(title, prompt))
    if any(row["attention_ms"] for row in summary["prompt"].values()):
        console.print(titled("where the TTFT went, ms", parts_table(summary["prompt"])))
    console.print(titled("the same tokens as a growing dialogue: TTFT by turn, ms", dialogue))
    for line in (
        BRIEF if brief else LEGEND,
        agreement_line(summary["first_difference"]),
        *form_lines(summary["generate"]),
    ):
        console.print(line)
    if verdicts := [Verdict.from_json(row) for row in summary.get("verdicts", ())]:
        console.print("over all turns of the dialogue", style="bold")
        console.print("\n".join(verdict_lines(verdicts, console.width)))


def tables(summary: Mapping[str, Any], brief: bool = False) -> tuple[Table, Table]:
    """The prompt's and the dialogue's, with medians alone where `brief`."""
    return prompt_table(summary["prompt"], brief), dialogue_table(summary["dialogue"], brief)


def prompt_table(rows: Mapping[str, Any], brief: bool = False) -> Table:
    """TTFT and TPOT of each variant, their ratios, and, where one chose, its density and the time of choosing."""
    chose = any(middle(row["select_ms"]) for row in rows.values())
    heads = ["", "TTFT ms", "ratio", "TPOT ms", "ratio", *(("density", "choosing ms") if chose else ())]

    def cells(row: Mapping[str, Any]) -> list[str]:
        found = [text for time in ("ttft", "tpot") for text in time_cells(row, time, brief)]
        if chose:
            density = middle(row["density"])
            found += ["" if density is None else f"{density:.1%}", whole(middle(row["select_ms"]))]
        return found

    return new_table(heads, rows=([name, *cells(row)] for name, row in rows.items()))


def parts_table(rows: Mapping[str, Any]) -> Table:
    """Attention, choosing and the rest of every variant, and what the first two cost of dense attention.

    "of its share" is attention's time over density times the time of the variant that computes everything.
    """
    times = [middle(row["attention_ms"]) for row in rows.values() if middle(row["density"]) == 1]
    dense = next(filter(None, times), None)

    def cells(row: Mapping[str, Any]) -> list[str]:
        attention, choosing, density = (middle(row[part]) for part in ("attention_ms", "select_ms", "density"))
        share = of_dense = number(None)
        if dense and density is not None and density < 1 and attention is not None and choosing is not None:
            share, of_dense = f"{attention / density / dense:.2f}", f"{choosing / dense:.1%}"
        return [number(attention), share, number(choosing), of_dense, number(middle(row["rest_ms"]))]

    heads = ("", "attention", "of its share", "choosing", "of dense", "rest")
    return new_table(heads, rows=([name, *cells(row)] for name, row in rows.items()))


def dialogue_table(turns: Sequence[Mapping[str, Any]], brief: bool = False) -> Table:
    """TTFT by turn of those who keep their cache from turn to turn."""
    names = list(turns[0]["variants"])
    heads = ["turn", "new", "cached", *(head for name in names for head in (name, "ratio")[: 1 + (name != OURS)])]
    rows = []
    for turn in turns:
        ours = turn["variants"][OURS]
        cells = [str(turn["turn"]), whole(ours["tokens_new"]), whole(ours["tokens_cached"])]
        for name in names:
            cells += time_cells(turn["variants"][name], "ttft", brief)[: 1 + (name != OURS)]
        rows.append(cells)
    return new_table(heads, (), rows)


def time_cells(row: Mapping[str, Any], time: str, brief: bool) -> list[str]:
    """A time and its ratio to the baseline's, nothing for the baseline itself; medians alone where `brief`."""
    if brief:
        return [typical(row[f"{time}_ms"]), ratio_cell(row, time).partition(" ")[0]]
    return [ranged(row[f"{time}_ms"]), ratio_cell(row, time)]


def ratio_cell(row: Mapping[str, Any], time: str) -> str:
    """A row's ratio to the baseline, nothing for the baseline itself."""
    ratio = row[f"{time}_ratio"]
    return "" if ratio is None else compared(ratio["median"], interval_of(row, time))


def interval_of(row: Mapping[str, Any], time: str) -> Ratio | None:
    """The interval of a row's ratio; results that were written before there was one have none."""
    found = row.get(f"{time}_interval")
    return None if found is None else Ratio(**found)


def agreement_line(difference: Mapping[str, Any] | None, reference: str = "ours") -> str:
    """Whether the greedy tokens are the same, in a sentence."""
    if difference is None:
        return "greedy tokens: identical in every round"
    place = f"{difference['task']}, round {difference['round']}, turn {difference['turn']}, token {difference['token']}"
    return f"greedy tokens: NOT identical, {difference['variant']} parts from {reference} first at {place}"
