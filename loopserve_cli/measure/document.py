"""A run as one JSON document: what was asked for, where it ran, every record, and what they come to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loopserve_cli.measure.fingerprint import plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def command_of(name: str, options: DataclassInstance) -> dict[str, Any]:
    """What was asked for: the words typed, and every option as it was resolved."""
    return {"name": name, "argv": sys.argv[1:], "options": plain(asdict(options))}


def whole_run(
    command: Mapping[str, Any],
    environment: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    summary: Any,
    **facts: Any,
) -> dict[str, Any]:
    """The document; `facts` are what else it says of the run, before the records."""
    return {
        "command": dict(command),
        "environment": dict(environment),
        **facts,
        "records": list(records),
        "summary": summary,
    }
