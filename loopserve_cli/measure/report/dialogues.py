"""What is drawn of each dialogue, and of all together, as JSON types; as many of them as the page has room for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loopserve_cli.measure.report import by_head, by_turn
from loopserve_cli.measure.report.packed import packed
from loopserve_cli.stats import TurnRecord

# Bytes of the page that they may take: with the library and the records it stays under 6 MB.
MOST = 1_800_000
FEWEST = 2  # from which on there is something to say of all of them


def by_name(records: Iterable[TurnRecord]) -> dict[str, list[TurnRecord]]:
    """The turns of each dialogue."""
    found: dict[str, list[TurnRecord]] = {}
    for record in records:
        found.setdefault(record.conversation_id or "n/a", []).append(record)
    return found


def drawn(
    dialogues: Mapping[str, Sequence[TurnRecord]], profiles: Sequence[str], heads: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], set[str]]:
    """What is drawn of each dialogue, that of all of them first where there are several, and which measures are known.

    In each of them `heads` holds, by profile, what was chosen, None for one that chose nothing.
    """
    of_heads, of_all_heads = by_head.by_dialogue(heads)
    made: list[dict[str, Any]] = []
    figures = []
    for name, records in dialogues.items():
        series, found = by_turn.of_dialogue(records, profiles)
        figures.append(found)
        made.append({"name": name, "series": series, "heads": _in_order(of_heads.get(name, {}), profiles)})
    if len(made) >= FEWEST:
        together = {"series": by_turn.of_all(figures, profiles), "heads": _in_order(of_all_heads, profiles)}
        made.insert(0, {"name": None, "count": len(dialogues)} | together)
    return made, by_turn.known(figures)


def _in_order(by_profile: Mapping[str, Any], profiles: Sequence[str]) -> list[Any]:
    return [by_profile.get(name) for name in profiles]


def fitting(dialogues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of them, from the first, as the page has room for; no more of them are looked at than twice that."""
    count = 2
    while count < len(dialogues) and len(packed(json.dumps(dialogues[: 2 * count]))) <= MOST:
        count *= 2
    return dialogues[:count]
