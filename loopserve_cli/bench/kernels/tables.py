"""The tables of `bench kernels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loopserve_cli.bench.columns import Column, records_table, text, typical
from loopserve_cli.measure.figures import ranged, whole
from loopserve_cli.output import output_console, titled

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
            console.print(titled(f"{rows:,} new rows", records_table(GAINS, part)))
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
    cells = {(row["rows"], row["keys"]): row for row in summary}
    done = [shape for shape in shapes if shape["skipped"] is None]
    return records_table(TIMES, [{**shape, **cells[shape["rows"], shape["keys"]]} for shape in done])


def coverage_table(coverage: Row) -> Table:
    """One row for each layer, then the mean of all, for each length."""
    rows: list[Row] = []
    for mean in coverage["overall"]:
        rows += [row for row in coverage["layers"] if row["tokens"] == mean["tokens"]]
        rows.append({"layer": "all", **mean})
    return records_table(COVERAGE, [{**row, "all_heads": row, "chosen": row} for row in rows])


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


def share(value: float) -> str:
    """A share with its sign."""
    return f"{value:.1%}"


TIMES = (
    Column("rows", "rows", whole),
    Column("keys", "keys", whole),
    Column("rounds", "rounds", whole),
    Column("dense", "baseline", text),
    Column("dense ms", "dense_ms", ranged),
    Column("own dense ms", "own_dense_ms", ranged),
    Column("dense / own", "own_dense_gain", ranged),
    Column("choose ms", "choose_ms", ranged),
)
GAINS = (
    Column("keys", "keys", whole),
    Column("asked", "density", lambda share: f"{share * 100:.3g}%"),
    Column("executed", "executed", lambda share: f"{share:.2%}"),
    Column("index ms", "index_ms", typical),
    Column("attention ms", "attend_ms", ranged),
    Column("gain", "attend_gain", ranged),
    Column("at most", "attend_ceiling", typical),
    Column("total gain", "total_gain", ranged),
    Column("at most", "total_ceiling", typical),
    Column("choosing", "choosing_share", lambda shares: f"{shares['median']:.0%}"),
    Column("of own", "own_efficiency", typical),
    Column("flex", "flex_ratio", ranged),
)
COVERAGE = (
    Column("tokens", "tokens", whole),
    Column("layer", "layer", text),
    *(
        Column(name.replace("_", " "), name, share)
        for name in ("sampled", "lines", "worst_head", "executed", "density")
    ),
    Column("dense heads", "all_heads", lambda row: f"{row['dense_heads']} of {row['heads']}"),
    Column("chosen lines", "chosen", lambda row: f"{row['verticals']:,.0f} v, {row['slashes']:,.0f} s"),
)
