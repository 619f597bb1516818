"""The file of costs: one table per device and dtype, with where and when it was measured."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.files import PROFILE_LIMIT, Refused, read_file
from loopserve_cli.policies.prefill.costs import Costs

BY_SIZE = ("dense_cell", "sparse_cell", "sampled_pair")
NUMBERS = ("product", "fixed")
WORDS = ("measured_on", "dtype", "where", "torch", "date")


def read_costs(path: Path) -> list[Costs]:
    """All entries of a file; raises UsageError that names the file and what is wrong in it."""
    try:
        table = tomllib.loads(read_file(path, PROFILE_LIMIT).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, Refused) as problem:
        raise UsageError(f"{path}: no file of costs: {problem}; write it anew with bench device") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; check its path and mode") from None
    entries = table.get("measured")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path}: has no [[measured]]; write it anew with bench device --write-costs")
    return [_parsed(entry, f"{path}: entry {number}") for number, entry in enumerate(entries, start=1)]


def costs_text(entries: Iterable[Costs]) -> str:
    """The file's text, which `read_costs` reads back."""
    lines = ["# Seconds, as measured by `loopserve bench device`; what each means stands in costs.py.\n"]
    for costs in entries:
        lines.append("[[measured]]")
        lines += [f"{name} = {_quoted(getattr(costs, name))}" for name in WORDS]
        lines += [f"{name} = {getattr(costs, name):.3e}" for name in NUMBERS]
        for name in BY_SIZE:
            by_size = ", ".join(f"{size} = {value:.3e}" for size, value in sorted(getattr(costs, name).items()))
            lines.append(f"{name} = {{ {by_size} }}")
        lines.append("")
    return "\n".join(lines)


def _parsed(entry: Mapping[str, Any], where: str) -> Costs:
    for name in WORDS:
        if not isinstance(entry.get(name), str):
            raise UsageError(f"{where}: {name} must be a text; write it anew with bench device --write-costs")
    fields: dict[str, Any] = {name: entry[name] for name in WORDS}
    fields |= {name: _by_size(entry.get(name), f"{where}: {name}") for name in BY_SIZE}
    fields |= {name: _number(entry.get(name), f"{where}: {name}") for name in NUMBERS}
    return Costs(**fields)


def _by_size(table: Any, where: str) -> dict[int, float]:
    if not isinstance(table, dict) or not table or not all(size.isdecimal() and int(size) for size in table):
        raise UsageError(f"{where} must say seconds by head size, for example {{ 128 = 1e-12 }}")
    return {int(size): _number(value, f"{where}.{size}") for size, value in table.items()}


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise UsageError(f"{where} must be a number of seconds above 0")
    return float(value)


def _quoted(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
