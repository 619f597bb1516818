"""The tables of a comparison: variants as rows, turns as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loopserve_cli.bench.forms import form_lines
from loopserve_cli.bench.tables import agreement_line
from loopserve_cli.measure.figures import mebibytes, number, percent, whole
from loopserve_cli.output import new_table, output_console, titled

MOST_COLUMNS = 9


def print_comparison(summary: Mapping[str, Any], title: str) -> None:
    """TTFT and TPOT by turn, then memory and agreement; as many turns as the terminal has room for."""
    console = output_console()
    baseline = summary["baseline"]
    turns = shown_turns(summary, console.width)
    console.print(title, style="bold")
    for name, measure in {"TTFT": "ttft", "TPOT": "tpot"}.items():
        console.print(titled(f"{name}, ms, and its ratio to {baseline}'s", times_table(summary, turns, measure)))
    console.print(titled("memory after the longest turn, and agreement", memory_table(summary)))
    for line in legend(summary, turns):
        console.print(line)


def legend(summary: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the figures mean, and whether those who attend to everything said the same."""
    baseline, every = summary["baseline"], summary["dialogue"]
    lines = [f"x is the time over {baseline}'s in the same round: under 1 it is faster; medians, --json has the spread"]
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


def shown_turns(summary: Mapping[str, Any], width: int) -> list[Mapping[str, Any]]:
    """The turns that fit beside the names and the prompt at once, the last ones of them."""
    turns: list[Mapping[str, Any]] = summary["dialogue"]
    columns = MOST_COLUMNS
    while columns > 1:
        shown = [turns[i] for i in landmarks([length_of(turn["variants"]) for turn in turns], columns)]
        if all(width_of(summary, shown, measure) <= width for measure in ("ttft", "tpot")):
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
    table = new_table()
    header, *rows = cells(summary, turns, measure)
    table.add_column("")
    for name in header[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def cells(summary: Mapping[str, Any], turns: Sequence[Mapping[str, Any]], measure: str) -> list[list[str]]:
    """The header and the rows of a table of times, as text."""
    columns = [(f"turn {turn['turn']}\n{length_of(turn['variants']):,}", turn["variants"]) for turn in turns]
    columns.append((f"at once\n{length_of(summary['prompt']):,}", summary["prompt"]))
    names = [[name_of(name), *(_time(row.get(name), measure) for _, row in columns)] for name in summary["prompt"]]
    return [["", *(header for header, _ in columns)], *names]


def width_of(summary: Mapping[str, Any], turns: Sequence[Mapping[str, Any]], measure: str) -> int:
    """How wide a table of times is: the look has a space before the first column and two after each."""
    columns = zip(*cells(summary, turns, measure), strict=True)
    return 1 + sum(2 + max(len(line) for cell in column for line in cell.split("\n")) for column in columns)


def memory_table(summary: Mapping[str, Any]) -> Table:
    """Bytes and keys after the longest turn, density of the prompt at once, and both agreements."""
    last = [(summary["dialogue"][-1]["variants"].get(name, row), row) for name, row in summary["prompt"].items()]
    # On most machines all of it is in one place.
    places = [p for p in ("device", "host") if any(_median(row, f"kv_store_{p}_bytes") for row, _ in last)]
    table = new_table()
    table.add_column("", overflow="fold")
    heads = [f"KV on\n{place}\nMiB" for place in places]
    heads += ["working\nset\nMiB", "keys\nread", "keys\nstored", "density\nat once\n%"]
    for head in (*heads, "agree\nturns\n%", "agree\nat once\n%"):
        table.add_column(head, justify="right", no_wrap=True)
    for (name, agreement), (row, prompt) in zip(summary["agreement"].items(), last, strict=True):
        table.add_row(
            name_of(name),
            *(mebibytes(_median(row, f"kv_store_{place}_bytes")) for place in places),
            mebibytes(_median(row, "working_set_bytes")),
            *(whole(_median(row, key)) for key in ("keys_read", "keys_stored")),
            percent(_median(prompt, "density")),
            *(percent(agreement[task]) for task in ("dialogue", "prompt")),
        )
    return table


def name_of(variant: str) -> str:
    """A variant's name over as many lines as it has parts."""
    return variant.replace(", ", ",\n").replace("+", "\n+")


def _time(row: Mapping[str, Any] | None, measure: str) -> str:
    if row is None:
        return number(None)
    time, ratio = row[f"{measure}_ms"]["median"], row[f"{measure}_ratio"]
    return f"{number(time)} {'     ' if ratio is None else 'x' + format(ratio['median'], '.2f')}"


def _median(row: Mapping[str, Any], measure: str) -> float | None:
    return None if row[measure] is None else row[measure]["median"]
