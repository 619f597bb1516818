"""Conversion between formats: what is written is read again as it was."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Dialogue, Message
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import SAVE_FORMATS, convert, read_dialogues, save_dialogues

TALK = Dialogue("one", (Message("system", "Be brief."), Message("user", "Where?"), Message("assistant", "Here.")))
OPEN = Dialogue("two", (Message("user", "Where?"), Message("assistant", "Here."), Message("user", "Why?")))
QUESTIONS = Dialogue("three", (Message("user", "Where?"), Message("user", "Why?")))
FOREIGN = [name for name in SAVE_FORMATS if name != "loopserve"]

texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    TurnRecord, turn=st.integers(1), ttft_ms=numbers, itl_ms=st.lists(st.floats(0, 9)), output_text=texts
)


@st.composite
def dialogues(draw: st.DrawFn, ours: bool) -> Dialogue:
    said = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for number in range(draw(st.integers(1, 6))):
        if number % 2 == 0:
            said.append(Message("user", draw(texts)))
        elif ours:
            content = draw(texts | st.just(""))
            said.append(Message("assistant", content, draw(st.booleans()), draw(st.none() | records)))
        else:
            said.append(Message("assistant", draw(texts)))
    return Dialogue(draw(texts), tuple(said))


def round_trip(written: list[Dialogue], format: str, name: str) -> list[Dialogue]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        save_dialogues(path, written, format)
        return [replace(d, source="") for d in read_dialogues(path, pytest.fail)]


@settings(deadline=None)
@given(st.lists(dialogues(ours=True), min_size=1, max_size=4, unique_by=lambda d: d.id))
def test_ours_keeps_everything(written: list[Dialogue]) -> None:
    assert round_trip(written, "loopserve", "t.jsonl") == written


@settings(deadline=None)
@given(
    st.sampled_from(["vllm", "sharegpt"]),
    st.lists(dialogues(ours=False), min_size=1, max_size=4, unique_by=lambda d: d.id),
)
def test_vllm_and_sharegpt_keep_ids_and_messages(format: str, written: list[Dialogue]) -> None:
    assert round_trip(written, format, "t.json") == written


@settings(deadline=None)
@given(st.lists(dialogues(ours=False), min_size=1, max_size=4))
def test_openai_keeps_messages(written: list[Dialogue]) -> None:
    assert [d.messages for d in round_trip(written, "openai", "t.jsonl")] == [d.messages for d in written]


def test_the_written_files_are_those_formats(tmp_path: Path) -> None:
    for format in SAVE_FORMATS:
        save_dialogues(tmp_path / format, [TALK], format)
    said = [{"role": m.role, "content": m.content} for m in TALK.messages]
    assert json.loads((tmp_path / "openai").read_text()) == {"messages": said}
    assert json.loads((tmp_path / "vllm").read_text()) == [{"id": "one", "messages": said}]
    assert json.loads((tmp_path / "sharegpt").read_text()) == [
        {
            "id": "one",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Where?"},
                {"from": "gpt", "value": "Here."},
            ],
        }
    ]
    header, *rows = map(json.loads, (tmp_path / "loopserve").read_text().splitlines())
    assert (header["loopserve"], header["id"], rows) == (1, "one", said)


def test_questions_without_answers_stay_questions(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    save_dialogues(path, [QUESTIONS, TALK], "loopserve")
    assert [d.messages for d in read_dialogues(path)] == [QUESTIONS.messages, TALK.messages]


def test_the_header_names_model_and_profile_of_what_was_measured(tmp_path: Path) -> None:
    answer = Message("assistant", "Here.", record=TurnRecord(model="demo", profile="full"))
    save_dialogues(tmp_path / "t.jsonl", [Dialogue("one", (Message("user", "?"), answer))], "loopserve")
    header = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert (header["model"], header["profile"]) == ("demo", "full")


@pytest.mark.parametrize(
    ("held", "name", "starts"),
    [
        ([TALK], "out.jsonl", '{"loopserve": 1'),
        ([TALK, OPEN], "out.jsonl", '{"messages": '),
        ([QUESTIONS, QUESTIONS], "out.jsonl", '{"loopserve": 1'),
        ([TALK, OPEN], "out.JSON", '[\n  {\n    "id": "one",\n    "conversations"'),
    ],
)
def test_the_name_tells_the_format(held: list[Dialogue], name: str, starts: str, tmp_path: Path) -> None:
    save_dialogues(tmp_path / "in", held, "loopserve")
    assert convert(tmp_path / "in", tmp_path / name) == len(held)
    assert (tmp_path / name).read_text().startswith(starts)
    assert [d.messages for d in read_dialogues(tmp_path / name)] == [d.messages for d in held]


def test_a_name_that_promises_a_packed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="files are written unpacked; leave .gz out of the name"):
        convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", "openai")


def test_the_format_asked_for_overrides_the_name(tmp_path: Path) -> None:
    save_dialogues(tmp_path / "in", [TALK], "sharegpt")
    assert convert(tmp_path / "in", tmp_path / "out.txt", "vllm") == 1
    assert json.loads((tmp_path / "out.txt").read_text())[0]["messages"][0]["role"] == "system"


def test_a_file_is_overwritten_only_when_asked_even_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    save_dialogues(path, [TALK, OPEN], "sharegpt")
    before = path.read_bytes()
    with pytest.raises(LoopserveError) as caught:
        convert(path, path, "vllm")
    assert str(caught.value) == f"{path}: exists already; give another name, or add --overwrite"
    assert path.read_bytes() == before
    assert convert(path, path, "vllm", overwrite=True) == 2
    assert b'"messages"' in path.read_bytes()


@pytest.mark.parametrize("format", FOREIGN)
def test_what_a_format_cannot_hold_is_refused_and_nothing_written(format: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    silent = Dialogue("four", (Message("user", "?"), Message("assistant", "", partial=True)))
    with pytest.raises(LoopserveError) as caught:
        save_dialogues(out, [TALK, QUESTIONS], format)
    assert (
        str(caught.value) == f"{out}: dialogue 'three' has no answers, which {format} needs; use the loopserve format"
    )
    with pytest.raises(LoopserveError) as caught:
        save_dialogues(out, [silent], format)
    assert str(caught.value) == (
        f"{out}: dialogue 'four': message 2: content is empty, which {format} forbids; use the loopserve format"
    )
    assert not out.exists()


def test_wrong_use() -> None:
    with pytest.raises(UsageError) as caught:
        convert(Path("in.json"), Path("out.txt"))
    assert str(caught.value) == (
        "out.txt: its name does not tell the format; add --to with one of loopserve, openai, sharegpt, vllm"
    )
    with pytest.raises(UsageError) as caught:
        convert(Path("in.json"), Path("out.json"), "xml")
    assert str(caught.value) == "unknown format 'xml'; choose one of loopserve, openai, sharegpt, vllm"
    with pytest.raises(LoopserveError, match="^out.json: there is no dialogue to write$"):
        save_dialogues(Path("out.json"), [], "openai")


TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
THOUGHT = (Message("user", "Where?"), Message("assistant", "Here.", reasoning="Let me look."))


@pytest.mark.parametrize("format", SAVE_FORMATS)
def test_tools_and_reasoning_are_kept_where_the_format_can(format: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out"
    save_dialogues(source, [Dialogue("one", THOUGHT, tools=(TOOL,)), TALK], "loopserve")
    told: list[str] = []
    assert convert(source, target, format, warn=told.append) == 2
    kept, other = read_dialogues(target, pytest.fail)
    assert (kept.tools, other.tools) == ((TOOL,), ())
    if format == "sharegpt":
        assert json.loads(json.loads(target.read_text())[0]["tools"]) == [TOOL]
        assert kept.messages[1].reasoning is None
        assert told == [f"{target}: sharegpt has no place for reasoning (of 1 of 2 dialogues); left out"]
    else:
        assert kept.messages == THOUGHT
        assert told == []


def test_openai_writes_reasoning_as_servers_do(tmp_path: Path) -> None:
    save_dialogues(tmp_path / "out", [Dialogue("one", THOUGHT, tools=(TOOL,))], "openai")
    row = json.loads((tmp_path / "out").read_text())
    assert row["messages"][1] == {"role": "assistant", "content": "Here.", "reasoning_content": "Let me look."}
    assert row["tools"] == [TOOL]


def test_what_only_our_format_holds_is_named(tmp_path: Path) -> None:
    answer = Message("assistant", "Here.", partial=True, record=TurnRecord(model="demo"))
    source, target = tmp_path / "in.jsonl", tmp_path / "out.json"
    save_dialogues(source, [Dialogue("one", (Message("user", "?"), answer), date="2026-01-31")], "loopserve")
    told: list[str] = []
    convert(source, target, "vllm", warn=told.append)
    assert told == [
        f"{target}: vllm has no place for the date (of 1 of 1 dialogues), the marks of stopped answers (of 1 of 1 "
        "dialogues), measurements (of 1 of 1 dialogues); left out"
    ]
    told.clear()
    convert(source, target, "loopserve", overwrite=True, warn=told.append)
    assert (read_dialogues(target)[0].date, told) == ("2026-01-31", [])
