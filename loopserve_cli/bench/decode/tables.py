"""The tables of `bench decode`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loopserve_cli.bench.comparison_tables import name_of
from loopserve_cli.bench.tables import interval_of
from loopserve_cli.measure.figures import (
    NO_DIFFERENCE,
    NOTHING_SHOWN,
    compared,
    mebibytes,
    number,
    percent,
    plain,
    ranged,
    whole,
)
from loopserve_cli.measure.spread import middle
from loopserve_cli.output import new_table, output_console, titled

HEADS = (
    "TPOT\nms",
    "step\nms",
    "gain",
    "at\nmost",
    "bound\nms",
    "of bound\n%",
    "keys\nread",
    "choosing\n%",
    "steps in\na graph",
    "KV device\nMiB",
    "of full\n%",
    "KV host\nMiB",
)
KERNELS = {"fused": "fused kernels of loopserve's", "eager": "the model's own code"}
LEGEND = f"""\
median (lowest to highest) over the rounds
  TPOT        over the whole answer
  step        a settled one: after those that read everything because there was no output yet to choose by
  gain        the first profile's step over this one's in the same round, with the 95% interval;
              {NOTHING_SHOWN}: {NO_DIFFERENCE}; at most: what their bounds allow
  bound       reading the weights and the keys, at the bandwidth of a copy
  choosing    keys, again and again, of the settled steps' time
  KV          as allocated, with the working set, of what so many tokens take in full"""


def print_tables(whole_run: Mapping[str, Any], title: str) -> None:
    """A table for every length, and what the figures mean; plain text on a pipe."""
    console = output_console()
    bound, summary = whole_run["bound"], whole_run["summary"]
    for entry in summary:
        console.print(titled(f"{entry['tokens']:,} tokens: {title}", length_table(entry["profiles"])))
    console.print(LEGEND)
    console.print(
        f"a step reads {mebibytes(bound['weight_bytes'])} MiB of weights and {bound['kv_bytes_per_token']:,} bytes for "
        f"every key; a copy moves {number(bound['bandwidth_bytes_per_s'] / 1e9)} GB/s, read and written",
        soft_wrap=True,
    )
    rows = [row for entry in summary for row in entry["profiles"].values()]
    for kernels in dict.fromkeys(row["step_kernels"] for row in rows if row["step_kernels"]):
        console.print(f"the layers are run by {KERNELS[kernels]}", soft_wrap=True)
    for refusal in dict.fromkeys(row["graph_refusal"] for row in rows if row["graph_refusal"]):
        console.print(f"the model's steps cannot be captured as a graph: {refusal}", soft_wrap=True)


def length_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """The profiles at one length."""

    def cells(row: Mapping[str, Any]) -> list[str]:
        return [
            number(row["tpot_ms"]["median"]),
            ranged(row["step_ms"]),
            "" if row["gain"] is None else compared(row["gain"]["median"], interval_of(row, "gain")),
            "" if row["most_gain"] is None else plain(row["most_gain"]),
            number(row["bound_ms"]),
            percent(row["bound_share"]["median"]),
            whole(row["keys_read"]),
            percent(middle(row["choosing_share"])),
            f"{row['graph_replays']} of {row['steps']}",
            mebibytes(row["kv_device_bytes"]),
            percent(row["kv_device_share"]),
            mebibytes(row["kv_store_host_bytes"]),
        ]

    return new_table(("", *HEADS), rows=([name_of(name), *cells(row)] for name, row in rows.items()))
