"""Dialogue files of all formats, changed in structure and bytewise: read, shown and written again, or one line."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from chat_fakes import make_session, printed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_transcript_fuzz import JUNK, SEEDS, mutated, spots

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.errors import LoopserveError
from loopserve_cli.stats import TurnRecord, summarise
from loopserve_cli.transcript import read_dialogues, resume, save_dialogues

STATS = TurnRecord(turn=1, ttft_ms=1.5, itl_ms=[1.0], tokens_new=3, rss_bytes=9, versions={"torch": "2"}).to_json()
OURS: list[Any] = [
    {"loopserve": 1, "id": "a", "model": "m", "created": "2026-01-31T09:00:00+00:00", "date": "2026-01-31", "x": [1]},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "reasoning": "c", "partial": True, "stats": STATS},
]
HUGE: list[Any] = [
    *JUNK,
    10**400,
    -(10**400),
    1e308,
    [10**400],
    {"a": "\ud800"},
    {"\ud800": 1},
    "0001-01-01T00:00+14:00",
]


def changed(rng: random.Random) -> bytes:
    """The bytes of a file."""
    if rng.random() < 0.5:
        rows = json.loads(json.dumps(OURS))
        for _ in range(rng.randint(1, 3)):
            holder, key = rng.choice(list(spots(rows)))
            holder[key] = copy.deepcopy(rng.choice(HUGE))
    else:
        rows = [mutated(rng.choice(SEEDS), rng) for _ in range(rng.randint(1, 3))]
    text = "\n".join(map(json.dumps, rows)) if rng.random() < 0.7 else json.dumps(rows)
    if rng.random() < 0.1:
        text = text.replace("1.5", rng.choice(["1e400", "-1e400", "NaN", "9" * 5000, "[" * 5000])) + "\n"
    data = bytearray(text.encode())
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def never_but_one_line(seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / "t.jsonl", Path(folder) / "again.jsonl"
        path.write_bytes(changed(rng))
        try:
            dialogues = read_dialogues(path, lambda line: None, strict=rng.random() < 0.3)
            save_dialogues(again, dialogues, "loopserve", overwrite=True)
            read_dialogues(again, pytest.fail)
            records = [m.record for d in dialogues for m in d.messages if m.record is not None]
            json.dumps(summarise(records))
        except LoopserveError as error:
            assert "\n" not in str(error)
        session = make_session()
        for line in (f"/load {path}", "/stats", "/tokens", f"/save {folder}/copy.jsonl"):
            try:
                dispatch(session, line)
            except LoopserveError as error:
                assert "\n" not in str(error)
        "".join(printed(session)).encode()
        try:
            _, messages, writer = resume(path, lambda line: None)
            writer.rewrite(messages)
        except LoopserveError as error:
            assert "\n" not in str(error)


@settings(deadline=None, max_examples=200)
@given(st.integers(0))
def test_a_file_is_read_or_refused(seed: int) -> None:
    never_but_one_line(seed)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000)
@given(st.integers(0))
def test_a_file_is_read_or_refused_long(seed: int) -> None:
    never_but_one_line(seed)
