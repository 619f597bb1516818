"""The tables of `bench device`: what became of every stage, then each one's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from loopserve_cli.bench.columns import records_table
from loopserve_cli.bench.device.columns import COLUMNS
from loopserve_cli.bench.device.folder import DONE, Result
from loopserve_cli.bench.device.stages import named
from loopserve_cli.output import new_table, output_console, titled

Row = Mapping[str, Any]


def print_results(results: Sequence[Result]) -> None:
    """Plain text on a pipe. n/a was not measured; an empty cell does not apply."""
    console = output_console()
    for result in results:
        if result.records and result.status != "skipped":
            print_stage(result)
    console.print(titled("stages", stages_table(results)))


def stages_table(results: Sequence[Result]) -> Table:
    """A row per stage, with the reason where it is not done."""
    table = new_table(("stage", "what", "status", "s", "records", "failed", ""))
    for result in results:
        what = named((result.stage,))[0].what
        counts = [f"{result.seconds:.1f}", str(len(result.records)), str(result.errors or "")]
        table.add_row(result.stage, what, result.status, *counts, result.reason or "")
    return table


def print_stage(result: Result) -> None:
    """One stage's figures."""
    console = output_console()
    own = PRINTED.get(result.stage)
    if own is not None:
        if result.status == DONE:
            try:
                own(result.records[0], f"{result.stage}, {result.device}")
            except (KeyError, TypeError):  # what that command wrote then is not what it reads now
                console.print(f"{result.stage}: written by another version of loopserve; its JSON has the figures")
        return
    failed = [record for record in result.records if "error" in record]
    measured = [record for record in result.records if "error" not in record]
    if result.stage == "environment":
        console.print(machine_line(measured[0]), soft_wrap=True)
        measured = measured[1:]
    columns = COLUMNS.get(result.stage, ())
    if measured and columns:
        what = named((result.stage,))[0].what
        console.print(titled(f"{result.stage}: {what}", records_table(columns, measured)))
    for record in failed:
        words = ", ".join(f"{name} {value}" for name, value in record.items() if name != "error")
        console.print(f"{words}: {record['error']}", soft_wrap=True)


def machine_line(machine: Row) -> str:
    """What was measured, in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    absent = ", ".join(name for name, version in machine["packages"].items() if version is None) or "nothing"
    return f"{machine['device']}, {machine['cores_usable']} cores, {versions}; not installed: {absent}"


def _kernels(whole: Row, title: str) -> None:
    from loopserve_cli.bench.kernels.tables import print_tables

    print_tables(whole, title)


def _decode(whole: Row, title: str) -> None:
    from loopserve_cli.bench.decode.tables import print_tables

    print_tables(whole, title)


def _turns(whole: Row, title: str) -> None:
    from loopserve_cli.bench.comparison_tables import print_comparison
    from loopserve_cli.bench.tables import print_tables

    summary = whole["summary"]
    (print_comparison if "exact" in summary else print_tables)(summary, title)


# The stages that are commands of `bench` print as those do.
PRINTED: dict[str, Callable[[Row, str], None]] = {"kernels": _kernels, "decode": _decode, "turns": _turns}
