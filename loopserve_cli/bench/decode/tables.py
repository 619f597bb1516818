"""The tables of `bench decode`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from loopserve_cli.bench.columns import Column, records_table, typical
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
from loopserve_cli.output import fitting, output_console, titled

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
        console.print(titled(f"{entry['tokens']:,} tokens: {title}", length_table(entry["profiles"], console)))
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


def length_table(rows: Mapping[str, Mapping[str, Any]], console: Console) -> Table:
    """The profiles at one length, the columns that there is room for; --json has all."""
    records = [{**row, "name": name, "all": row} for name, row in rows.items()]
    return fitting(COLUMNS, lambda columns: records_table(columns, records), console)


def gain(row: Mapping[str, Any]) -> str:
    """The gain with its interval; nothing for the first profile."""
    return "" if row["gain"] is None else compared(row["gain"]["median"], interval_of(row, "gain"))


COLUMNS = (
    Column("", "name", name_of),
    Column("TPOT\nms", "tpot_ms", typical, 8),
    Column("step\nms", "step_ms", ranged),
    Column("gain", "all", gain),
    Column("at\nmost", "most_gain", lambda most: "" if most is None else plain(most), 1),
    Column("bound\nms", "bound_ms", number, 7),
    Column("of bound\n%", "bound_share", lambda share: percent(middle(share)), 3),
    Column("keys\nread", "keys_read", whole, 2),
    Column("choosing\n%", "choosing_share", lambda share: percent(middle(share)), 5),
    Column("steps in\na graph", "all", lambda row: f"{row['graph_replays']} of {row['steps']}", 6),
    Column("KV device\nMiB", "kv_device_bytes", mebibytes, 4),
    Column("of full\n%", "kv_device_share", percent, 9),
    Column("KV host\nMiB", "kv_store_host_bytes", mebibytes, 4),
)
