"""The tables of `bench kernels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loopserve_cli.output import new_table, output_console, titled

Row = Mapping[str, Any]

FIRST = {"choose": "choosing", "own_dense": "attention", "flex": "FlexAttention"}
LEGEND = """\
median (lowest to highest) over the rounds; a gain is the time of the best dense attention over ours in the same round
  at most     what the gain cannot pass: 1 / executed for attention; with choosing and index as they are for the total
  executed    the share of causal entries that the tiles of made-up lines really compute, as near to the asked as can be
  choose      real choosing on the same tensors; made-up tensors have no lines, so its result is not what is executed
  total       choose + index + attention;  choosing  choose + index over dense
  of own      executed share of our kernel's own dense time, over what it took: 1 is a kernel that loses nothing
  flex        FlexAttention's time over ours, on the same cells"""
COVERAGE_LEGEND = """\
share of the attention held, mean over heads: sampled is what the choice measured on its rows, the rest is over all rows
  executed    what the tiles compute: the lines, what lies beside them, the last rows, and heads that run dense
  the lengths below which the profile runs dense are not applied here"""


def print_tables(whole: Mapping[str, Any], title: str) -> None:
    """Times, gains, what was left out, and coverage; plain text on a pipe."""
    console = output_console()
    if whole["summary"]:
        console.print(titled(title, times_table(whole["summary"], whole["shapes"])))
        for rows in dict.fromkeys(row["rows"] for row in whole["summary"]):
            part = [row for row in whole["summary"] if row["rows"] == rows]
            console.print(titled(f"{rows:,} new rows", gains_table(part)))
        console.print(LEGEND)
    for line in notes(whole["shapes"]):
        console.print(line, soft_wrap=True)
    if whole["coverage"]["layers"]:
        alpha, profile = whole["coverage"]["alpha"], whole["coverage"]["profile"]
        name = f"coverage over all rows: demo model, {profile}, alpha {alpha:g} asked"
        console.print(titled(name, coverage_table(whole["coverage"])))
        console.print(COVERAGE_LEGEND)


def times_table(summary: Sequence[Row], shapes: Sequence[Row]) -> Table:
    """What does not depend on the density: one row for each shape."""
    table = _columns("rows", "keys", "rounds", "dense", "dense ms", "own dense ms", "dense / own", "choose ms")
    cells = {(row["rows"], row["keys"]): row for row in summary}
    for shape in shapes:
        if shape["skipped"] is None:
            row = cells[shape["rows"], shape["keys"]]
            words = [f"{shape['rows']:,}", f"{shape['keys']:,}", str(shape["rounds"]), shape["baseline"]]
            table.add_row(
                *words, *(_spread(row[name]) for name in ("dense_ms", "own_dense_ms", "own_dense_gain", "choose_ms"))
            )
    return table


def gains_table(rows: Sequence[Row]) -> Table:
    """What lines gain: one row for each number of keys and density."""
    names = (
        "keys",
        "asked",
        "executed",
        "index ms",
        "attention ms",
        "gain",
        "at most",
        "total gain",
        "at most",
        "choosing",
    )
    table = _columns(*names, "of own", "flex")
    for row in rows:
        table.add_row(
            f"{row['keys']:,}",
            f"{row['density'] * 100:.3g}%",
            f"{row['executed']:.2%}",
            _number(row["index_ms"]["median"]),
            _spread(row["attend_ms"]),
            _spread(row["attend_gain"]),
            _number(row["attend_ceiling"]["median"]),
            _spread(row["total_gain"]),
            _number(row["total_ceiling"]["median"]),
            f"{row['choosing_share']['median']:.0%}",
            _number(row["own_efficiency"]["median"]),
            "n/a" if row["flex_ratio"] is None else _spread(row["flex_ratio"]),
        )
    return table


def coverage_table(coverage: Row) -> Table:
    """One row for each layer, then the mean of all, for each length."""
    table = _columns(
        "tokens", "layer", "sampled", "lines", "worst head", "executed", "density", "dense heads", "chosen lines"
    )
    for mean in coverage["overall"]:
        layers = [row for row in coverage["layers"] if row["tokens"] == mean["tokens"]]
        for row in [*layers, mean]:
            shares = (row[name] for name in ("sampled", "lines", "worst_head", "executed", "density"))
            table.add_row(
                f"{row['tokens']:,}",
                str(row.get("layer", "all")),
                *(f"{share:.1%}" for share in shares),
                f"{row['dense_heads']} of {row['heads']}",
                f"{row['verticals']:,.0f} v, {row['slashes']:,.0f} s",
            )
    return table


def notes(shapes: Sequence[Row]) -> list[str]:
    """What was left out and why, each reason once; and what the first calls took, which is in no figure above."""
    lines = [f"{s['rows']:,} rows over {s['keys']:,} keys: left out, {s['skipped']}" for s in shapes if s["skipped"]]
    done = [shape for shape in shapes if shape["skipped"] is None]
    lines += dict.fromkeys(shape["flex"] for shape in done if shape["flex"] is not None)
    refused = {f"{name}: {why}" for shape in done for name, why in shape["dense_tried"].items() if isinstance(why, str)}
    lines += sorted(refused)
    if done:
        first = {kind: sum(shape["first_ms"].get(name, 0.0) for shape in done) / 1e3 for name, kind in FIRST.items()}
        words = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in first.items() if seconds)
        lines.append(f"apart, first calls with all that they compile and tune: {words}")
        lines.append(f"apart, all that was prepared and warmed up: {sum(shape['prepare_s'] for shape in done):.1f} s")
    return lines


def _columns(*names: str) -> Table:
    table = new_table()
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float) -> str:
    """Three digits or so: 1,234 or 12.3 or 1.23 or 0.012."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _spread(values: Mapping[str, float]) -> str:
    return f"{_number(values['median'])} ({_number(values['low'])} to {_number(values['high'])})"
