"""Whatever stands in a dialogue file: dialogues that can be written again, or one line of a TranscriptError."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_transcript_exports import BRANCHED, chatgpt, webui
from test_transcript_formats import CASES
from test_transcript_records import GOOD, PAIR, TOOL

from loopserve_cli.errors import TranscriptError
from loopserve_cli.transcript import read_dialogues, save_dialogues

SEEDS: list[Any] = [
    *(record for records, _ in CASES.values() for record in (records if isinstance(records, list) else [records])),
    *chatgpt(BRANCHED, "more"),
    *webui([{"id": "1", "role": "user", "content": "a"}], "1", system="s"),
    {"uuid": "u", "chat_messages": [{"uuid": "1", "sender": "human", "text": "a", "content": [{"type": "text"}]}]},
    {"id": "1", "conversation_id": "c", "prompt": "a", "prompt_fragments": [{"content": "b"}], "response": "c"},
    {"session_id": "s", "turns": [{"text": "a"}, {"text": "b"}]},
    {"multi_turn": [{"prompt_back": "a", "question_at_back": "b", "answer": ["c"]}]},
    {"id": 1, "context": [1], "multi_turns": [{"input": "a", "answer": "b"}]},
    {**GOOD, "system": "s", "tools": [TOOL], "images": ["i"]},
    {"loopserve": 1, "id": "a", "date": "2026-01-31", "tools": [TOOL]},
    PAIR[0],
]
JUNK: list[Any] = [
    *(None, True, 0, -1, 1.5, float("nan"), float("inf"), "", " ", "a", "\ud800", "[", "[1]"),
    *([], {}, [[]], [None], [{}], {"a": 1}, {"": None}, "user", "assistant", "system"),
]


def spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or index in it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from spots(value[key])


def mutated(record: Any, rng: random.Random) -> Any:
    record = copy.deepcopy(record)
    for _ in range(rng.randint(1, 3)):
        found = list(spots(record))
        if not found:
            break
        holder, key = rng.choice(found)
        other, at = rng.choice(found)
        change = rng.random()
        if change < 0.6:
            holder[key] = copy.deepcopy(rng.choice(JUNK))
        elif change < 0.75:
            del holder[key]
        elif change < 0.9 or isinstance(holder, dict):
            holder[key] = copy.deepcopy(other[at])
        else:
            holder.insert(0, copy.deepcopy(holder[key]))
    return record


@pytest.mark.parametrize("seed", range(5))
def test_nothing_but_an_error_of_one_line(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path, again = tmp_path / "t.jsonl", tmp_path / "again.jsonl"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(250):
        first = rng.choice(SEEDS)
        rows = [mutated(rng.choice([first, rng.choice(SEEDS)]), rng) for _ in range(rng.randint(1, 3))]
        path.write_text("\n".join(map(json.dumps, rows)) if rng.random() < 0.5 else json.dumps(rows))
        told: list[str] = []
        try:
            dialogues = read_dialogues(path, told.append, strict=rng.random() < 0.3)
        except TranscriptError as error:
            told.append(str(error))
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            save_dialogues(again, dialogues, "loopserve", overwrite=True)
            back = read_dialogues(again, pytest.fail)
            assert [(d.id, d.messages, d.date) for d in back] == [(d.id, d.messages, d.date) for d in dialogues]
        for line in told:
            assert "\n" not in line
            line.encode()
    assert min(outcomes.values()) > 25
