"""The cost model's coefficients as a file, from what the stages measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from loopserve_cli.bench.device.folder import Folder
from loopserve_cli.errors import LoopserveError
from loopserve_cli.policies.prefill.costs import Costs
from loopserve_cli.policies.prefill.costs_file import BY_SIZE, costs_text, read_costs
from loopserve_cli.transcript.write import write_whole


def write_costs(folder: Folder, file: Path) -> list[Costs]:
    """Write what was measured, in place of the file's entries of the same devices and dtypes; returns what is new.

    Raises LoopserveError where nothing was measured or the disk refuses, UsageError for a file that is no file of
    costs.
    """
    new = measured_costs(folder)
    if not new:
        raise LoopserveError(f"{folder.path}: no costs were measured, so none are written; see its costs.json")
    replaced = {(costs.measured_on, costs.dtype) for costs in new}
    old = read_costs(file) if file.exists() else []
    kept = [costs for costs in old if (costs.measured_on, costs.dtype) not in replaced]
    write_whole(file, costs_text([*kept, *new]).encode(), overwrite=True)
    return new


def measured_costs(folder: Folder) -> list[Costs]:
    """One entry per dtype that was measured in full."""
    costs, environment = folder.read("costs"), folder.read("environment")
    if costs is None or environment is None or not environment.records:
        return []
    machine = environment.records[0]
    records = [record for record in costs.records if "error" not in record]
    dtypes = dict.fromkeys(record["dtype"] for record in records)
    return [entry(machine, dtype, [r for r in records if r["dtype"] == dtype]) for dtype in dtypes]


def entry(machine: Mapping[str, Any], dtype: str, records: Iterable[Mapping[str, Any]]) -> Costs:
    """The costs of one dtype, from a record per head size."""
    records = list(records)
    by_size = {name: {int(record["size"]): float(record[name]) for record in records} for name in BY_SIZE}
    gpu, threads = machine.get("gpu"), machine["torch_threads"]
    where = machine["platform"] if gpu else f"{machine['cpu']}, {threads} {'thread' if threads == 1 else 'threads'}"
    return Costs(
        measured_on=machine["device"],
        dtype=dtype,
        dense_cell=by_size["dense_cell"],
        sparse_cell=by_size["sparse_cell"],
        sampled_pair=by_size["sampled_pair"],
        product=min(float(record["product"]) for record in records),
        fixed=median(float(record["fixed"]) for record in records),
        where=str(where),
        torch=str(machine["versions"]["torch"]),
        date=str(machine["timestamp"])[:10],
    )
