"""The files that can be saved from the page, as they stand in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loopserve_cli.measure.report.packed import packed

MOST = 600_000  # bytes of the page that one of them may take
MOST_UNPACKED = 40 * MOST  # letters; nothing measured is packed as well as that


def saved(document: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | None]]:
    """The files that can be saved from the page: their names, and what they hold, None for one that is too large."""
    summary = {key: value for key, value in document.items() if key != "records"}
    files = {
        "records.jsonl": (json.dumps(row, ensure_ascii=False) + "\n" for row in document["records"]),
        "summary.json": iter([json.dumps(summary, indent=2, ensure_ascii=False) + "\n"]),
        "heads.jsonl": (json.dumps(row, ensure_ascii=False) + "\n" for row in heads),
    }
    return [(name, _held(parts)) for name, parts in files.items() if name != "heads.jsonl" or heads]


def _held(parts: Iterator[str]) -> str | None:
    """The text, packed; None, and no more than the beginning is read, where the page has no room for it."""
    text: list[str] = []
    length = 0
    for part in parts:
        text.append(part)
        length += len(part)
        if length > MOST_UNPACKED:
            return None
    whole = packed("".join(text))
    return whole if len(whole) <= MOST else None
