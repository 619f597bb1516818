"""The summary as a table of values: a row for each profile, a column for each figure that some profile has."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any


def summary_csv(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """CSV, its columns named by their path, such as `verdict.first_token.low`; unknown is empty."""
    rows = [{"profile": name} | dict(_flat(row, "")) for name, row in summary.items()]
    known = dict.fromkeys(column for row in rows for column, value in row.items() if value is not None)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(known), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _flat(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
