"""Records: a bad one is left out, any id names one, and what stands beside the messages is kept or named."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from loopserve_cli import app
from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Dialogue, Message
from loopserve_cli.replay.script import read_scripts
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues, resume

PAIR = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
SAID = (Message("user", "Where?"), Message("assistant", "Here."))
GOOD = {"messages": PAIR}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(tmp_path: Path, *rows: Any, told: list[str] | None = None) -> list[Dialogue]:
    return read_dialogues(write(tmp_path / "t.jsonl", *rows), pytest.fail if told is None else told.append)


# -- bad records


def test_the_good_ones_are_read_and_one_line_says_the_rest(tmp_path: Path) -> None:
    told: list[str] = []
    bad = [{"messages": []}, '{"messages": ', {"messages": PAIR[1:]}, [], {"prompt": "x"}, *[{"messages": "x"}] * 1200]
    found = read(tmp_path, GOOD, *bad, {"id": "last", **GOOD}, told=told)
    assert [d.id for d in found] == ["t-1", "last"]
    assert told == [
        f"{tmp_path / 't.jsonl'}: 1,205 of 1,207 records left out (lines 2, 3, 4, 5, 6 and 1,200 more): messages must "
        "be a list, not text (1,200), messages is empty (1), not valid JSON (1), 3 other reasons; --strict refuses "
        "instead"
    ]


def test_without_a_good_record_the_first_is_named(tmp_path: Path) -> None:
    with pytest.raises(TranscriptError) as caught:
        read(tmp_path, {"messages": []}, {"messages": 1}, {"messages": 1})
    assert str(caught.value) == (
        f"{tmp_path / 't.jsonl'}:1: messages is empty; put messages in it or remove the dialogue "
        "(none of the 3 records can be read)"
    )


def test_a_line_that_is_not_utf8_takes_out_its_record(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    line = json.dumps(GOOD).encode()
    path.write_bytes(line + b"\r\n" + line.replace(b"Here", b"H\xe8re") + b"\r\n" + line)
    told: list[str] = []
    assert [d.messages for d in read_dialogues(path, told.append)] == [SAID, SAID]
    assert "1 of 3 records left out (line 2): not UTF-8 text" in told[0]


def test_of_our_own_format_a_dialogue_is_a_record(tmp_path: Path) -> None:
    told: list[str] = []
    found = read(
        tmp_path, {"loopserve": 1, "id": "a"}, *PAIR, {"loopserve": 1}, PAIR[1], {"loopserve": 1}, *PAIR, told=told
    )
    assert [(d.id, d.messages) for d in found] == [("a", SAID), ("t-2", SAID)]
    assert told[0].startswith(f"{tmp_path / 't.jsonl'}: 1 of 3 records left out (line 4): role is assistant, but")


def test_convert_and_replay_refuse_with_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "t.jsonl", GOOD, {"messages": []}, GOOD)
    out = tmp_path / "out.jsonl"
    assert app.main(["convert", str(source), str(out), "--strict"]) == 1
    assert f"{source}:2: messages is empty" in capsys.readouterr().err
    assert not out.exists()
    assert app.main(["convert", str(source), str(out)]) == 0
    err = capsys.readouterr().err
    assert f"warning: {source}: 1 of 3 records left out (line 2)" in err
    assert f"{out}: 2 dialogues written" in err
    assert app.main(["replay", str(source), "--strict"]) == 1
    assert f"{source}:2: messages is empty" in capsys.readouterr().err
    assert len(read_scripts([str(source)], "recorded", None)) == 2


# -- ids


@pytest.mark.parametrize(
    ("id", "name"),
    [
        (2.0, "2.0"),
        (0, "0"),
        (False, "false"),
        ([1, "a"], '[1, "a"]'),
        ({"$oid": "5f"}, '{"$oid": "5f"}'),
        ("", "t-1"),
        (" \n", "t-1"),
        (None, "t-1"),
        ([], "t-1"),
        ("\ud800", "t-1"),
    ],
)
def test_an_id_only_names(id: Any, name: str, tmp_path: Path) -> None:
    for field, messages in (("id", "messages"), ("id", "conversations"), ("conversation_id", "conversation")):
        found = read(tmp_path, {field: id, messages: PAIR}, {messages: PAIR})
        assert [d.id for d in found] == [name, "t-2"]
    assert read(tmp_path, {"loopserve": 1, "id": id}, *PAIR, {"loopserve": 1}, *PAIR)[0].id == name


def test_thousands_of_one_id_cost_little(tmp_path: Path) -> None:
    found = read(tmp_path, *[{"id": "x", **GOOD}] * 20_000, {"id": "x#3", **GOOD})
    assert [d.id for d in found[:3]] == ["x", "x#2", "x#3"]
    assert (found[-2].id, found[-1].id) == ("x#20000", "x#3#2")


# -- beside the messages


@pytest.mark.parametrize("field", ["system", "system_prompt"])
@pytest.mark.parametrize("messages", ["messages", "conversations", "conversation"])
def test_a_system_prompt_beside_the_messages_is_the_first(field: str, messages: str, tmp_path: Path) -> None:
    assert read(tmp_path, {messages: PAIR, field: "Speak Latin."})[0].messages == (
        Message("system", "Speak Latin."),
        *SAID,
    )
    for blank in ("", "  ", None):
        assert read(tmp_path, {messages: PAIR, field: blank})[0].messages == SAID


def test_a_second_system_prompt_is_named(tmp_path: Path) -> None:
    told: list[str] = []
    first = {"role": "system", "content": "Speak Latin."}
    rows = [{"messages": [first, *PAIR], "system": text} for text in ("Speak Greek.", "Speak Latin.")]
    found = read(tmp_path, *rows, told=told)
    assert [d.messages[0].content for d in found] == ["Speak Latin.", "Speak Latin."]
    assert told == [f"{tmp_path / 't.jsonl'}: left out of the prompts: system (in 1 of 2 dialogues)"]


@pytest.mark.parametrize("field", ["instruction", "context", "preamble", "available_tools", "files"])
def test_what_may_belong_to_the_prompt_is_named_where_no_message_says_it(field: str, tmp_path: Path) -> None:
    told: list[str] = []
    text = [] if field == "files" else "Where?"  # the first message's text
    read(tmp_path, {"messages": PAIR, field: ["Speak Latin."]}, {"messages": PAIR, field: text}, told=told)
    assert told == [f"{tmp_path / 't.jsonl'}: left out of the prompts: {field} (in 1 of 2 dialogues)"]


def test_of_two_system_prompts_beside_the_messages_one_is_named(tmp_path: Path) -> None:
    told: list[str] = []
    (found,) = read(tmp_path, {"messages": PAIR, "system": "Speak Latin.", "system_message": "Be brief."}, told=told)
    assert found.messages[0] == Message("system", "Speak Latin.")
    assert told == [f"{tmp_path / 't.jsonl'}: left out of the prompts: system_message (in 1 of 1 dialogues)"]


def test_our_own_format_names_what_it_passes_over(tmp_path: Path) -> None:
    told: list[str] = []
    rows = [{"loopserve": 1, "system": "Speak Latin."}, {**PAIR[0], "images": ["a.png"]}, PAIR[1]]
    assert read(tmp_path, *rows, told=told)[0].messages == SAID
    assert "system (in 1 of 1 dialogues)" in told[0] and "images (in 1 of 1 dialogues)" in told[0]
    resumed: list[str] = []
    resume(tmp_path / "t.jsonl", resumed.append)
    assert resumed == told


def test_thoughts_in_another_form_than_text_are_named(tmp_path: Path) -> None:
    told: list[str] = []
    details = {**PAIR[1], "reasoning_details": [{"text": "A map."}]}
    read(
        tmp_path, {"messages": [PAIR[0], details]}, {"messages": [PAIR[0], {**details, "thought": "A map."}]}, told=told
    )
    assert told == [f"{tmp_path / 't.jsonl'}: left out of the prompts: reasoning_details (in 1 of 2 dialogues)"]


# -- names of others


@pytest.mark.parametrize("field", ["dialog", "history", "turns", "chat", "data"])
def test_a_single_list_of_messages_is_read_under_any_name(field: str, tmp_path: Path) -> None:
    shared = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]
    found = read(tmp_path, {"id": 7, field: PAIR, "tags": ["a"]}, {field: shared})
    assert [d.id for d in found] == ["7", "t-2"]
    assert [d.messages for d in found] == [SAID, SAID]


def test_two_lists_of_messages_are_no_dialogue(tmp_path: Path) -> None:
    with pytest.raises(TranscriptError, match="unknown format .an object with 'chosen', 'rejected'."):
        read(tmp_path, {"chosen": PAIR, "rejected": PAIR})


def test_bare_lists_of_messages_are_dialogues(tmp_path: Path) -> None:
    assert [d.messages for d in read(tmp_path, PAIR, PAIR)] == [SAID, SAID]


@pytest.mark.parametrize("roles", [("User", "Assistant"), ("HUMAN", "AI"), ("human", "bot"), ("user ", "CHATBOT")])
def test_roles_in_capitals_and_of_others(roles: tuple[str, str], tmp_path: Path) -> None:
    rows = [{"role": role, "content": row["content"]} for role, row in zip(roles, PAIR, strict=True)]
    assert read(tmp_path, {"messages": rows})[0].messages == SAID


@pytest.mark.parametrize(
    "beside",
    [
        {"tools": [TOOL]},
        {"tools": json.dumps([TOOL])},
        {"tools": [TOOL["function"]]},
        {"functions": [TOOL["function"]], "tools": ""},
        {"tools": [json.dumps(TOOL)]},
    ],
)
def test_tools_reach_the_dialogue_and_the_script(beside: dict[str, Any], tmp_path: Path) -> None:
    (dialogue,) = read(tmp_path, {**GOOD, **beside})
    assert dialogue.tools == (TOOL,)
    (script,) = read_scripts([str(tmp_path / "t.jsonl")], "recorded", None)
    assert script.tools == (TOOL,)


@pytest.mark.parametrize("nothing", ["", " ", [], "[]", None, {}])
def test_no_tools(nothing: Any, tmp_path: Path) -> None:
    assert read(tmp_path, {**GOOD, "tools": nothing})[0].tools == ()


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ("find()", "tools is text that is not valid JSON; write a list of functions or remove it"),
        ([3], "tools must be a list of functions, but one of them is a number; mend or remove it"),
        ([{"name": "\ud800"}], "tools holds half a character; remove it or write the whole pair"),
    ],
)
def test_tools_that_are_none_are_told(tools: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(TranscriptError) as caught:
        read(tmp_path, {**GOOD, "tools": tools})
    assert str(caught.value) == f"{tmp_path / 't.jsonl'}:1: {expected}"


def test_what_no_prompt_of_text_can_hold_is_named_once_a_file(tmp_path: Path) -> None:
    told: list[str] = []
    named = [{**PAIR[0], "name": "Ann", "images": ["base64"]}, PAIR[1]]
    rows = [{**GOOD, "images": ["a.png"]}, GOOD, {"messages": named, "image": ""}, {**GOOD, "audios": ["a.wav"]}]
    assert [d.messages for d in read(tmp_path, *rows, told=told)] == [SAID] * 4
    (line,) = told
    for field in ("images (in 2 of 4 dialogues)", "name (in 1 of 4 dialogues)", "audios (in 1 of 4 dialogues)"):
        assert field in line


def test_a_picture_inside_a_message_takes_out_the_record(tmp_path: Path) -> None:
    told: list[str] = []
    seen = [
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}, {"type": "input_text", "text": "?"}]}
    ]
    assert len(read(tmp_path, {"messages": seen}, GOOD, told=told)) == 1
    assert "1 of 2 records left out (line 1): type is 'input_image', but only text can be read (1)" in told[0]


# -- our own format


def test_our_format_keeps_tools_date_and_reasoning(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    header = Header(id="x", date="2026-01-31", tools=(TOOL,))
    answer = Message("assistant", "Here.", reasoning="Let me look.")
    TranscriptWriter(path, header).rewrite([SAID[0], answer])
    first, _, last = map(json.loads, path.read_text().splitlines())
    assert (first["date"], first["tools"], last["reasoning"]) == ("2026-01-31", [TOOL], "Let me look.")
    (dialogue,) = read_dialogues(path, pytest.fail)
    assert (dialogue.date, dialogue.tools, dialogue.messages) == ("2026-01-31", (TOOL,), (SAID[0], answer))
    assert resume(path)[:2] == (header, [SAID[0], answer])
    (script,) = read_scripts([str(path)], "recorded", None)
    assert (script.date, script.tools, script.exchanges[0].reasoning) == ("2026-01-31", (TOOL,), "Let me look.")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("date", "yesterday", "date is 'yesterday'; write it as 2026-01-31 or remove it"),
        ("date", 20260131, "date must be text, not a number"),
        ("tools", [1], "tools must be a list of functions, but one of them is a number; mend or remove it"),
    ],
)
def test_a_wrong_header_field_is_told(field: str, value: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(TranscriptError) as caught:
        read(tmp_path, {"loopserve": 1, field: value}, *PAIR)
    assert str(caught.value) == f"{tmp_path / 't.jsonl'}:1: {expected}"


def test_reasoning_of_a_wrong_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(TranscriptError, match=":3: reasoning must be text, not a list$"):
        read(tmp_path, {"loopserve": 1}, PAIR[0], {**PAIR[1], "reasoning": []})


# -- where the bytes come from


@pytest.mark.parametrize("name", ["talk.jsonl.gz", "talk.jsonl"])
def test_what_gzip_packed_is_unpacked(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()))
    (dialogue,) = read_dialogues(path, pytest.fail)
    assert (dialogue.id, dialogue.messages) == ("talk", SAID)


def test_a_damaged_gzip_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    whole = gzip.compress(json.dumps(GOOD).encode() * 99)
    for data, problem in (
        (whole[:-9], "is cut off"),
        (whole[:12] + b"\xff" * 9 + whole[21:], "is damaged"),
        (whole[:-8] + b"\0" * 8, "is damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(TranscriptError) as caught:
            read_dialogues(path)
        assert str(caught.value) == f"{path}: the gzip file {problem}; copy or download it again"


def test_a_packed_transcript_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"loopserve": 1}\n'))
    with pytest.raises(TranscriptError) as caught:
        resume(path)
    assert str(caught.value) == f"{path}: is packed with gzip; unpack it first"


def test_a_zip_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(TranscriptError) as caught:
        read_dialogues(path)
    assert str(caught.value) == f"{path}: is a ZIP archive; unpack it and give one of its files"


def test_a_dash_is_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def piped(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    piped(gzip.compress(json.dumps(GOOD).encode()))
    assert app.main(["convert", "-", str(tmp_path / "out.jsonl"), "--to", "vllm"]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text()) == [{"id": "stdin", "messages": PAIR}]
    piped(json.dumps({"messages": []}).encode())
    assert app.main(["convert", "-", str(tmp_path / "out2.jsonl"), "--to", "vllm"]) == 1
    assert "stdin:1: messages is empty" in capsys.readouterr().err
    piped(json.dumps(GOOD).encode())
    (script,) = read_scripts(["-"], "recorded", None)
    assert (script.source, script.id, script.exchanges[0].recorded) == ("-", "stdin", "Here.")
