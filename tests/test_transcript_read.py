"""Every supported dialogue format is told apart and read to the same messages."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from loopserve_cli.messages import Dialogue, Message
from loopserve_cli.transcript import read_dialogues

ASKED = [Message("user", "Where?"), Message("assistant", "Here."), Message("user", "Why?"), Message("assistant", "So.")]
OPENAI = [{"role": m.role, "content": m.content} for m in ASKED]
SHARED = [{"from": {"user": "human", "assistant": "gpt"}[m.role], "value": m.content} for m in ASKED]
HEADER = b'{"loopserve": 1, "model": "demo", "profile": "full", "created": null}\n'


def read(tmp_path: Path, data: bytes | str | object, name: str = "talk.json") -> list[Dialogue]:
    if not isinstance(data, bytes | str):
        data = json.dumps(data)
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_dialogues(path, warn=pytest.fail)


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


SAME: dict[str, str] = {
    "ours": HEADER.decode() + jsonl(*OPENAI),
    "ours, bare header": jsonl({"loopserve": 1}, *OPENAI),
    "OpenAI lines": jsonl({"messages": OPENAI}),
    "OpenAI object over many lines": json.dumps({"messages": OPENAI}, indent=2),
    "OpenAI array of messages": json.dumps(OPENAI),
    "OpenAI array of messages over many lines": json.dumps(OPENAI, indent=1),
    "OpenAI array of objects": json.dumps([{"messages": OPENAI}]),
    "an array around one object on a line of its own": "[\n" + json.dumps({"messages": OPENAI}) + "\n]\n",
    "OpenAI parts": jsonl(
        {"messages": [{**m, "content": [{"type": "text", "text": c} for c in m["content"]]} for m in OPENAI]}
    ),
    "ShareGPT": json.dumps([{"conversations": SHARED}]),
    "ShareGPT lines": jsonl({"conversations": SHARED}),
    "ShareGPT with role and content": json.dumps([{"conversations": OPENAI}]),
    "ShareGPT names in role and content": json.dumps(
        [{"conversations": [{"role": m["from"], "content": m["value"]} for m in SHARED]}]
    ),
    "ShareGPT of others": json.dumps(
        [
            {
                "conversations": [
                    {**m, "from": n} for m, n in zip(SHARED, ["user", "chatgpt", "human", "bing"], strict=True)
                ]
            }
        ]
    ),
    "vLLM": json.dumps([{"id": "talk", "messages": OPENAI}], indent=2),
    "BOM": "\ufeff" + jsonl({"messages": OPENAI}),
    "CRLF": (HEADER.decode() + jsonl(*OPENAI)).replace("\n", "\r\n"),
    "blank lines": "\n \n" + (HEADER.decode() + jsonl(*OPENAI)).replace("\n", "\n\n  \n"),
    "no line end": (HEADER.decode() + jsonl(*OPENAI)).rstrip("\n"),
}


@pytest.mark.parametrize("name", SAME)
def test_one_dialogue_in_every_format(name: str, tmp_path: Path) -> None:
    (dialogue,) = read(tmp_path, SAME[name])
    assert list(dialogue.messages) == ASKED
    assert dialogue.id == "talk"


def test_ids_and_sources(tmp_path: Path) -> None:
    rows = [{"id": i, "messages": OPENAI} for i in ("a", 7, "a", "a", None)]
    found = read(tmp_path, "\n".join(["", *map(json.dumps, rows)]), "t.jsonl")
    assert [d.id for d in found] == ["a", "7", "a#2", "a#3", "t-5"]
    assert [d.source for d in found] == [f"{tmp_path / 't.jsonl'}:{line}" for line in (2, 3, 4, 5, 6)]
    assert read(tmp_path, [{"messages": OPENAI}] * 2)[1].source == f"{tmp_path / 'talk.json'}: item 2"


def test_ours_with_several_dialogues_stats_and_questions(tmp_path: Path) -> None:
    stats = {"ttft_ms": 12.5, "tokens_new": 9, "a_later_version's": 1}
    text = jsonl(
        {"loopserve": 1, "id": "one"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "He", "partial": True, "stats": stats},
        {"loopserve": 1, "questions_only": True},
        {"role": "user", "content": "Where?"},
        {"role": "user", "content": "Why?"},
    )
    one, two = read(tmp_path, text, "t.jsonl")
    assert (one.id, two.id) == ("one", "t-2")
    assert [m.role for m in one.messages] == ["system", "user", "assistant"]
    assert one.messages[2].partial
    assert one.messages[2].record is not None
    assert (one.messages[2].record.ttft_ms, one.messages[2].record.tokens_new) == (12.5, 9)
    assert two.messages == (Message("user", "Where?"), Message("user", "Why?"))


def test_an_answer_of_ours_may_be_empty(tmp_path: Path) -> None:
    text = HEADER.decode() + jsonl({"role": "user", "content": "?"}, {"role": "assistant", "content": ""})
    assert read(tmp_path, text)[0].messages[1] == Message("assistant", "")


def test_aiperf_turns_are_questions_and_sessions_are_joined(tmp_path: Path) -> None:
    text = jsonl(
        {"session_id": "s", "turns": [{"text": "a"}, {"text": "b", "delay": 500}]},
        {"session_id": "other", "turns": [{"text": "x", "role": "user"}]},
        {"session_id": "s", "text": "c", "delay": 10},
        {"turns": [{"text": "y"}]},
    )
    found = read(tmp_path, text, "t.jsonl")
    assert [(d.id, [m.content for m in d.messages]) for d in found] == [
        ("s", ["a", "b", "c"]),
        ("other", ["x"]),
        ("t-3", ["y"]),
    ]
    assert {m.role for d in found for m in d.messages} == {"user"}


def test_the_benchmark_gives_a_dialogue_for_every_question_position(tmp_path: Path) -> None:
    turns = [
        {
            "prompt_front": "Who? It was Ann.",
            "question_at_front": "Who?",
            "prompt_middle": "It was. Who? Ann.",
            "prompt_back": "It was Ann. Who?",
            "question_at_back": "Who?",
            "answer": ["Ann", "Anna"],
        },
        {
            "prompt_front": "It was noon.",
            "question_at_front": "When?",
            "prompt_middle": "It was. When? Noon.",
            "prompt_back": "It was noon.",
            "question_at_back": "When?",
            "answer": ["Noon"],
        },
    ]
    found = read(tmp_path, [{"id": 3, "multi_turn": turns}])
    assert [d.id for d in found] == ["3/front", "3/middle", "3/back"]
    assert [m.content for m in found[0].messages] == ["Who? It was Ann.", "Ann", "When?\n\nIt was noon.", "Noon"]
    assert [m.content for m in found[1].messages] == ["It was. Who? Ann.", "Ann", "It was. When? Noon.", "Noon"]
    assert [m.content for m in found[2].messages] == ["It was Ann. Who?", "Ann", "It was noon.\n\nWhen?", "Noon"]


def test_the_benchmark_without_answers_is_questions(tmp_path: Path) -> None:
    turns = [{"prompt_back": "a?", "question_at_back": "a?", "prompt_front": None}, {"prompt_back": "b?"}]
    (found,) = read(tmp_path, jsonl({"multi_turn": turns}), "t.jsonl")
    assert found == Dialogue("t/back", (Message("user", "a?"), Message("user", "b?")), f"{tmp_path / 't.jsonl'}:1")


def test_scbench_puts_the_context_before_the_first_question(tmp_path: Path) -> None:
    turns = [{"input": "Max?", "answer": 9}, {"input": "Min?", "answer": "1"}]
    (text,) = read(tmp_path, [{"id": 0, "context": "Numbers.", "multi_turns": turns}])
    assert text.id == "0"
    assert [(m.role, m.content) for m in text.messages] == [
        ("user", "Numbers.\n\nMax?"),
        ("assistant", "9"),
        ("user", "Min?"),
        ("assistant", "1"),
    ]
    (numbers,) = read(tmp_path, [{"id": 1, "context": [9, 1], "multi_turns": turns}])
    assert numbers.messages[0].content == "[9, 1]\n\nMax?"


def test_line_separators_inside_text_do_not_end_lines(tmp_path: Path) -> None:
    odd = "a\u2028b\u0085c\x0bd\re"
    line = json.dumps({"role": "user", "content": odd}, ensure_ascii=False).encode()
    assert b"\xe2\x80\xa8" in line
    assert read(tmp_path, HEADER + line + b"\n")[0].messages[0].content == odd


@pytest.mark.parametrize("cut", range(1, 46))
def test_a_last_line_that_was_cut_off_is_told_and_left_out(cut: int, tmp_path: Path) -> None:
    whole = HEADER + b'{"role": "user", "content": "Where?"}\n'
    last = '{"role": "assistant", "content": "Voil\u00e0, \u4e2d"}'.encode()
    assert len(last) == 47
    path = tmp_path / "t.jsonl"
    path.write_bytes(whole + last[:cut])
    told: list[str] = []
    (dialogue,) = read_dialogues(path, told.append)
    assert dialogue.messages == (Message("user", "Where?"),)
    assert told == [
        f"{path}:3: the last line is cut off (a process ended as it wrote it); the lines before it are kept"
    ]


def test_the_cut_is_told_on_stderr_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(HEADER + b'{"role": "user", "content": "Where?"}\n{"role')
    read_dialogues(path)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"warning: {path}:3: the last line is cut off")
    assert err.count("\n") == 1


def test_a_line_of_ten_megabytes_is_read_in_little_time(tmp_path: Path) -> None:
    text = "Ten megabytes of \u00e9t\u00e9. " * 450_000
    assert len(text.encode()) > 10_000_000
    ours = HEADER + json.dumps({"role": "user", "content": text}).encode() + b"\n"
    openai = json.dumps([{"messages": [{"role": "user", "content": text}]}]).encode()
    for data in (ours, openai):
        path = tmp_path / "t.json"
        path.write_bytes(data)
        begun = time.process_time()
        (dialogue,) = read_dialogues(path)
        assert time.process_time() - begun < 3
        assert dialogue.messages[0].content == text
