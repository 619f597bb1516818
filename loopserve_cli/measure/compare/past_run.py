"""A run that was measured before, read and never touched: its turns, and what it says it is of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.files import TRANSCRIPT_LIMIT, Refused, read_file
from loopserve_cli.measure.run_folder import RECORDS, RUN
from loopserve_cli.measure.turn_key import TurnKey, key_of
from loopserve_cli.nearest import hint_file
from loopserve_cli.stats import TurnRecord

# Of where a run was measured, what may explain that it was faster or slower.
MACHINE = ("platform", "cpu", "cores", "cores_usable", "memory_bytes", "torch_threads", "cuda")
# Of what was asked for, what a document tells that holds no fingerprints.
SETTINGS = ("sampling", "history", "max_turns", "special_tokens", "fidelity")
# What every record says of its run, for one that left nothing else.
OF_RECORDS = ("model", "dtype", "quant")


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run's turns, each once, and `facts`: fingerprints and machine by name, as far as they are known.

    `greedy` is whether answers were the likeliest tokens; None where the run does not say.
    """

    name: str
    records: tuple[TurnRecord, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    greedy: bool | None = None

    @property
    def profiles(self) -> list[str]:
        """Their names, in the order they were measured."""
        return list(dict.fromkeys(record.profile or "n/a" for record in self.records))


def read_run(path: Path) -> PastRun:
    """The run in a folder of `replay --out`, in its records.jsonl, or in the document of `replay --json`.

    A run that was killed left its folder without a summary, and perhaps half a line, which is left out. Raises
    UsageError where there is no run, no turn in it, or something damaged.
    """
    folder = path.is_dir()
    file = path / RECORDS if folder else path
    if folder and not file.exists():
        raise UsageError(f"{path}: holds no run ({RECORDS}); give a folder that `loopserve replay --out` wrote")
    lines = list(_lines(file))
    whole = lines[0] if len(lines) == 1 and isinstance(lines[0].get("records"), list) else None
    if whole is None:
        told = told_in(file.parent) if file.name == RECORDS else {}
    else:
        told, lines = whole, whole["records"]
    records = _records(file, lines)
    if not records:
        raise UsageError(f"{path}: no turn was measured there; give a run that has some")
    return PastRun(str(path), records, facts_of(told, records), _greedy(told))


def told_in(folder: Path) -> dict[str, Any]:
    """What a run told as it began, nothing where it did not; raises UsageError for what is damaged."""
    return object_in(folder / RUN, "; remove it to compare by the records alone")


def object_in(path: Path, then: str) -> dict[str, Any]:
    """The file's object, empty where there is no file; raises UsageError, with `then` behind it, for damage."""
    try:
        data = json.loads(_read(path)) if path.exists() else {}
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: is damaged{then}")
    return data


def facts_of(told: Mapping[str, Any], records: Iterable[TurnRecord]) -> dict[str, Any]:
    """What a run is of: what it told as it began, and of what it did not, what its records say."""
    first = next(iter(records), TurnRecord())
    known = {name: getattr(first, name) for name in OF_RECORDS}
    facts: dict[str, Any] = {"model": known, "device": first.device, "versions": first.versions}
    options, environment = _table(_table(told, "command"), "options"), _table(told, "environment")
    facts["settings"] = {name: options[name] for name in SETTINGS if name in options}
    facts["machine"] = {name: environment[name] for name in MACHINE if name in environment}
    facts["load"] = environment.get("loadavg")
    facts |= _table(told, "fingerprints")
    return {name: value for name, value in facts.items() if value}


def _greedy(told: Mapping[str, Any]) -> bool | None:
    temperature = _table(_table(_table(told, "command"), "options"), "sampling").get("temperature")
    return None if temperature is None else bool(temperature == 0)


def _table(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table within another, empty where there is none."""
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every JSON object of the file; a last line that a kill tore is left out."""
    raw = _read(path)
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
            if number > raw.count(b"\n"):
                return
        if not isinstance(data, dict):
            raise _no_turn(path, number)
        yield data


def _read(path: Path) -> bytes:
    try:
        return read_file(path, TRANSCRIPT_LIMIT)
    except Refused as refusal:
        raise UsageError(f"{path}: {refusal}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such run; give a folder of `loopserve replay --out`{hint_file(path)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _records(path: Path, lines: Iterable[Any]) -> tuple[TurnRecord, ...]:
    """The turns in the order in which they were first measured; of one that stands twice the later."""
    found: dict[TurnKey, TurnRecord] = {}
    for number, line in enumerate(lines, start=1):
        try:
            TurnKey.from_json(line)
            record = TurnRecord.from_json(line)
        except (KeyError, TypeError):
            raise _no_turn(path, number) from None
        found[key_of(record)] = record
    return tuple(found.values())


def _no_turn(path: Path, number: int) -> UsageError:
    return UsageError(f"{path}, line {number}: is no turn that a replay kept; give a run of `loopserve replay --out`")
