"""A replay as data: one JSON document, and the files of `--out`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from loopserve_cli.config import ReplayOptions
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.measure.verdict import verdicts
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.summary_csv import summary_csv
from loopserve_cli.stats import TurnRecord, summarise


def command_of(options: ReplayOptions, scripts: Sequence[Script]) -> dict[str, Any]:
    """What was asked for: the words typed, every option as it was resolved, and each dialogue's history."""
    resolved = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    histories = {script.id: script.history for script in scripts}
    return {"name": "replay", "argv": sys.argv[1:], "options": resolved, "histories": histories}


def document(
    command: Mapping[str, Any], environment: Mapping[str, Any], records: Sequence[TurnRecord]
) -> dict[str, Any]:
    """The whole run as JSON types; in the summary each profile has its verdict, ratios with their intervals in it."""
    summary = summarise(records)
    for verdict in verdicts(records, greedy=command["options"]["sampling"]["temperature"] == 0):
        summary[verdict.profile]["verdict"] = asdict(verdict)
    return {
        "command": dict(command),
        "environment": dict(environment),
        "records": [record.to_json() for record in records],
        "summary": summary,
    }


def prepare_folder(folder: Path) -> None:
    """Make the folder and see that it can be written to; raises UsageError before anything was measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "records.jsonl"
        probe.open("a", encoding="utf-8").close()
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"--out {folder}: it, or a part of its path, is a file; give a folder") from None
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.strerror}; give another folder") from None


def write_files(folder: Path, whole: Mapping[str, Any]) -> None:
    """The records as JSONL and CSV (lists and tables as JSON, unknown empty), the summary as JSON and CSV.

    Raises LoopserveError.
    """
    try:
        _write_files(folder, whole)
    except OSError as error:
        raise LoopserveError(f"--out {folder}: not all of it was written: {error.strerror}; free some space") from None


def _write_files(folder: Path, whole: Mapping[str, Any]) -> None:
    records: list[dict[str, Any]] = whole["records"]
    with (folder / "records.jsonl").open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    with (folder / "records.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, [f.name for f in fields(TurnRecord)], lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in record.items()})
    rest = {key: value for key, value in whole.items() if key != "records"}
    (folder / "summary.json").write_text(json.dumps(rest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "summary.csv").write_text(summary_csv(whole["summary"]), encoding="utf-8", newline="")
