"""A replay as data: one JSON document, and the files of `--out`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from loopserve_cli.config import ReplayOptions
from loopserve_cli.measure import document as measured
from loopserve_cli.measure.verdict import verdicts
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.summary_csv import summary_csv
from loopserve_cli.stats import TurnRecord, summarise


def command_of(options: ReplayOptions, scripts: Sequence[Script]) -> dict[str, Any]:
    """What was asked for, and each dialogue's history."""
    return measured.command_of("replay", options) | {"histories": {script.id: script.history for script in scripts}}


def document(
    command: Mapping[str, Any], environment: Mapping[str, Any], records: Sequence[TurnRecord]
) -> dict[str, Any]:
    """The whole run as JSON types; in the summary each profile has its verdict, ratios with their intervals in it."""
    summary = summarise(records)
    for verdict in verdicts(records, greedy=command["options"]["sampling"]["temperature"] == 0):
        summary[verdict.profile]["verdict"] = asdict(verdict)
    return measured.whole_run(command, environment, (record.to_json() for record in records), summary)


def files_of(whole: Mapping[str, Any]) -> dict[str, str]:
    """What `--out` holds in the end, by name.

    The records as JSONL and CSV (lists and tables as JSON, unknown empty), the summary as JSON and CSV.
    """
    records: list[dict[str, Any]] = whole["records"]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    table = io.StringIO()
    writer = csv.DictWriter(table, [f.name for f in fields(TurnRecord)], lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in record.items()})
    rest = {key: value for key, value in whole.items() if key != "records"}
    summary = json.dumps(rest, indent=2, ensure_ascii=False) + "\n"
    return {
        "records.jsonl": lines,
        "records.csv": table.getvalue(),
        "summary.json": summary,
        "summary.csv": summary_csv(whole["summary"]),
    }
