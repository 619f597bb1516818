"""The tables of a comparison: variants as rows, turns as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopserve_cli.bench.forms import form_lines
from loopserve_cli.bench.tables import agreement_line, interval_of
from loopserve_cli.measure.figures import NO_DIFFERENCE, NOTHING_SHOWN, mebibytes, number, percent, whole
from loopserve_cli.measure.spread import middle
from loopserve_cli.measure.verdict import Verdict
from loopserve_cli.measure.verdict_table import verdict_table
from loopserve_cli.output import new_table, output_console, titled, width_of

MOST_COLUMNS = 9
TIMES = {"ttft": "TTFT", "tpot": "TPOT"}


def print_comparison(summary: Mapping[str, Any], title: str) -> None:
    """TTFT and TPOT by turn, memory and agreement, and the verdict; as many turns as the terminal has room for."""
    console = output_console()
    baseline = summary["baseline"]
    turns = shown_turns(summary, console)
    console.print(title, style="bold")
    for measure, name in TIMES.items():
        console.print(titled(f"{name}, ms, and {baseline}'s over it", times_table(summary, turns, measure)))
    console.print(titled("memory after the longest turn, and agreement", memory_table(summary)))
    for line in legend(summary, turns):
        console.print(line)
    if verdicts := [Verdict.from_json(row) for row in summary.get("verdicts", ())]:
        console.print(Text(f"over all turns of the dialogue, against {baseline}", style="bold"))
        console.print(verdict_table(verdicts, console))


def legend(summary: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the figures mean, and whether those who attend to everything said the same."""
    baseline, every = summary["baseline"], summary["dialogue"]
    lines = [f"x is {baseline}'s time over a variant's in the same round: above 1 that is faster; medians"]
    rows = [row for variants in (summary["prompt"], *(turn["variants"] for turn in turns)) for row in variants.values()]
    if any(found.no_difference for row in rows for time in TIMES if (found := interval_of(row, time))):
        lines.append(f"{NOTHING_SHOWN} stands for x where the 95% interval holds 1: {NO_DIFFERENCE}")
    if len(turns) < len(every):
        lines.append(f"{len(turns)} of {len(every)} turns are shown, the last within each doubling; --json has all")
    if any(row["agreement"] is not None for row in summary["prompt"].values()):
        lines.append("agreement: greedy tokens at the same place as full attention's, mean of all turns and rounds")
    if any(name not in every[-1]["variants"] for name in summary["prompt"]):
        lines.append("a variant that runs no dialogue shows its memory after the prompt at once")
    exact = summary["exact"]
    if len(exact) > 1:
        same = agreement_line(summary["exact_difference"], exact[0])
        lines.append(f"of those that read everything ({', '.join(exact)}) {same}")
    return lines + form_lines(summary["generate"])


def shown_turns(summary: Mapping[str, Any], console: Console) -> list[Mapping[str, Any]]:
    """The turns that fit beside the names and the prompt at once, the last ones of them."""
    turns: list[Mapping[str, Any]] = summary["dialogue"]
    columns = MOST_COLUMNS
    while columns > 1:
        shown = [turns[i] for i in landmarks([length_of(turn["variants"]) for turn in turns], columns)]
        if all(width_of(times_table(summary, shown, measure), console) <= console.width for measure in TIMES):
            return shown
        columns -= 1
    return turns[-1:]


def landmarks(lengths: Sequence[int], most: int) -> list[int]:
    """Which of so many turns stand for all: every one of a few, else the last at or under each doubling of length."""
    if len(lengths) <= most:
        return list(range(len(lengths)))
    found: list[int] = []
    limit = 1
    while not found or found[-1] < len(lengths) - 1:
        limit *= 2
        under = sum(length <= limit for length in lengths)
        if under and under - 1 not in found:
            found.append(under - 1)
    return found[-most:]


def length_of(variants: Mapping[str, Any]) -> int:
    """How long the dialogue was when it was answered, in tokens."""
    row = next(iter(variants.values()))
    return int(row["tokens_new"]) + int(row["tokens_cached"])


def times_table(summary: Mapping[str, Any], turns: Sequence[Mapping[str, Any]], measure: str) -> Table:
    """One measure of every variant: at each of the turns, and of the prompt at once."""
    columns = [(f"turn {turn['turn']}", turn["variants"]) for turn in turns] + [("at once", summary["prompt"])]
    heads = [f"{name}\n{length_of(variants):,}" for name, variants in columns]
    names = summary["prompt"]
    rows = ([name_of(name), *(_time(variants.get(name), measure) for _, variants in columns)] for name in names)
    return new_table(("", *heads), rows=rows)


def memory_table(summary: Mapping[str, Any]) -> Table:
    """Bytes and keys after the longest turn, density of the prompt at once, and both agreements."""
    last = [(summary["dialogue"][-1]["variants"].get(name, row), row) for name, row in summary["prompt"].items()]
    # On most machines all of it is in one place.
    places = [p for p in ("device", "host") if any(middle(row[f"kv_store_{p}_bytes"]) for row, _ in last)]
    heads = [f"KV on\n{place}\nMiB" for place in places]
    heads += ["working\nset\nMiB", "keys\nread", "keys\nstored", "density\nat once\n%"]
    rows = []
    for (name, agreement), (row, prompt) in zip(summary["agreement"].items(), last, strict=True):
        held = [middle(row[f"kv_store_{place}_bytes"]) for place in places] + [middle(row["working_set_bytes"])]
        keys = [middle(row["keys_read"]), middle(row["keys_stored"])]
        shares = [middle(prompt["density"]), agreement["dialogue"], agreement["prompt"]]
        rows.append([name_of(name), *map(mebibytes, held), *map(whole, keys), *map(percent, shares)])
    return new_table(("", *heads, "agree\nturns\n%", "agree\nat once\n%"), rows=rows)


def name_of(variant: str) -> str:
    """A variant's name over as many lines as it has parts."""
    return variant.replace(", ", ",\n").replace("+", "\n+")


def _time(row: Mapping[str, Any] | None, measure: str) -> str:
    if row is None:
        return number(None)
    ratio, interval = middle(row[f"{measure}_ratio"]), interval_of(row, measure)
    sign = NOTHING_SHOWN if interval is not None and interval.no_difference else "x"
    return f"{number(middle(row[f'{measure}_ms']))} {'     ' if not ratio else f'{sign}{1 / ratio:.2f}'}"
