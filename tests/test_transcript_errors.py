"""Every wrong dialogue file gives one line that names the file, the line or item, the field, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rights import without_rights

from loopserve_cli.errors import LoopserveError, TranscriptError
from loopserve_cli.transcript import read_dialogues, resume

HEADER = '{"loopserve": 1, "model": "demo", "profile": "full", "created": null}'
USER = '{"role": "user", "content": "Hello."}'
ANSWER = '{"role": "assistant", "content": "Hi."}'
SUPPORTED = (
    "supported are loopserve, SCBench, LoopServe benchmark, LongMemEval, MultiChallenge, OASST, ChatGPT, Claude, "
    "Open-WebUI, llm logs, LoCoMo, ShareGPT, WildChat, OpenAI messages, OpenAI Responses, a list of messages, "
    "MT-Bench-101, MT-Bench, aiperf, Ollama, vLLM multi-turn, LMSYS-Chat"
)


def lines(*rows: str) -> bytes:
    return "".join(row + "\n" for row in rows).encode()


def ours(*rows: str) -> bytes:
    return lines(HEADER, *rows)


def record(**fields: object) -> str:
    return json.dumps(fields)


def said(*pairs: tuple[str, object]) -> list[dict[str, object]]:
    return [{"role": role, "content": content} for role, content in pairs]


def shared(*pairs: tuple[str, object]) -> list[dict[str, object]]:
    return [{"from": who, "value": value} for who, value in pairs]


GOOD = record(messages=said(("user", "Hello."), ("assistant", "Hi.")))
PRETTY_BROKEN = b'[\n {"messages": [\n  {"role": "user", "content": "Hello."}\n ]}\n {"messages": []}\n]\n'

# name -> (file, its bytes, what follows the file's name in the error)
CASES: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("t.jsonl", b"", ": is empty; there is no dialogue in it"),
    "blank file": ("t.jsonl", b"\xef\xbb\xbf \r\n\n", ": is empty; there is no dialogue in it"),
    "binary file": ("t.jsonl", b"{\0\x01\x02", ": is a binary file; give a JSON or JSONL text file"),
    "UTF-16": ("t.json", '{"messages": []}'.encode("utf-16"), ": is UTF-16 text; save it as UTF-8"),
    "Parquet": (
        "t.json",
        b"PAR1\x15\x04\0",
        ": is a Parquet file; export it as JSON lines first (datasets: Dataset.to_json)",
    ),
    "Latin-1 in line 3": (
        "t.jsonl",
        ours(USER) + b'{"role": "assistant", "content": "caf\xe9"}\n',
        ":3: not UTF-8 text (byte 0xe9); save the file as UTF-8",
    ),
    "Latin-1 in a document": (
        "t.json",
        b'[\n{"role": "user",\n "content": "caf\xe9"}\n]',
        ":3: not UTF-8 text (byte 0xe9); save the file as UTF-8",
    ),
    "plain text": (
        "t.txt",
        b"Hello.\nHi.\n",
        ":1: not valid JSON at column 1 (Expecting value); mend the line or remove it",
    ),
    "wrong JSON at line 7": (
        "t.jsonl",
        ours(USER, ANSWER, "", USER, ANSWER, '{"role": "user", "content" "Hello."}', ANSWER),
        ":7: not valid JSON at column 28 (Expecting ':' delimiter); mend the line or remove it",
    ),
    "wrong JSON at the last line, finished": (
        "t.jsonl",
        ours(USER, '{"role": "assist'),
        ":3: not valid JSON at column 10 (Unterminated string starting at); mend the line or remove it",
    ),
    "wrong JSON in OpenAI lines": (
        "t.jsonl",
        lines(GOOD, GOOD, GOOD[:-1]),
        f":3: not valid JSON at column {len(GOOD)} (Expecting ',' delimiter); mend the line or remove it",
    ),
    "wrong JSON in the first of many lines": (
        "t.jsonl",
        lines(GOOD[:-1], GOOD),
        f":1: not valid JSON at column {len(GOOD)} (Expecting ',' delimiter); mend the line or remove it",
    ),
    "wrong JSON in a document": (
        "t.json",
        PRETTY_BROKEN,
        ":5: not valid JSON at column 2 (Expecting ',' delimiter); mend the line or remove it",
    ),
    "nested without end": (
        "t.json",
        b"[" * 200_000,
        ": nested too deeply for a dialogue; check that this is the right file",
    ),
    "number without end": (
        "t.jsonl",
        ours(USER, '{"role": "assistant", "content": ' + "1" * 5000 + "}"),
        ":3: holds a number that is too long; check that this is the right file",
    ),
    "newer version": (
        "t.jsonl",
        lines('{"loopserve": 2}', USER),
        ":1: loopserve is 2, but this program reads version 1; update loopserve",
    ),
    "version of a wrong type": (
        "t.jsonl",
        lines('{"loopserve": true}', USER),
        ":1: loopserve must be the format's version, 1, not true or false",
    ),
    "header field of a wrong type": (
        "t.jsonl",
        lines('{"loopserve": 1, "model": 3}', USER),
        ":1: model must be text, not a number",
    ),
    "questions_only of a wrong type": (
        "t.jsonl",
        lines('{"loopserve": 1, "questions_only": "yes"}', USER),
        ":1: questions_only must be true or false, not text",
    ),
    "header alone": ("t.jsonl", ours(), ":1: no message is the user's; a dialogue needs at least one"),
    "no header": (
        "t.jsonl",
        lines(USER, ANSWER),
        ':1: is a message without a header; put {"loopserve": 1} in a line before it',
    ),
    "unknown role": (
        "t.jsonl",
        ours(USER, '{"role": "tool", "content": "4"}'),
        ":3: role 'tool' is unknown; use system, user, assistant",
    ),
    "two users in a row": (
        "t.jsonl",
        ours(USER, "", USER),
        ":4: role is user twice in a row; join the two or put the answer between them",
    ),
    "two answers in a row": (
        "t.jsonl",
        ours(USER, ANSWER, ANSWER),
        ":4: role is assistant twice in a row; join the two or put the question between them",
    ),
    "assistant first": (
        "t.jsonl",
        ours(ANSWER),
        ":2: role is assistant, but a dialogue begins with the user; put the question before it",
    ),
    "assistant after system": (
        "t.jsonl",
        ours('{"role": "system", "content": "Be brief."}', ANSWER),
        ":3: role is assistant, but a dialogue begins with the user; put the question before it",
    ),
    "system not first": (
        "t.jsonl",
        ours(USER, ANSWER, '{"role": "system", "content": "Be brief."}'),
        ":4: role is system, but only the first message may be; move it to the front or remove it",
    ),
    "answer among questions only": (
        "t.jsonl",
        lines('{"loopserve": 1, "questions_only": true}', USER, USER, ANSWER),
        ":4: role is assistant among questions only; take the answer or questions_only out",
    ),
    "empty content": (
        "t.jsonl",
        ours('{"role": "user", "content": ""}'),
        ":2: content is empty; write something or remove the message",
    ),
    "blank content": (
        "t.jsonl",
        ours('{"role": "user", "content": " \\n\\t"}'),
        ":2: content is empty; write something or remove the message",
    ),
    "missing role": (
        "t.jsonl",
        ours('{"content": "Hello."}'),
        ":2: role is missing; every message needs role and content",
    ),
    "missing content": (
        "t.jsonl",
        ours(USER, '{"role": "assistant"}'),
        ":3: content is missing; every message needs role and content",
    ),
    "content of a wrong type": (
        "t.jsonl",
        ours('{"role": "user", "content": 4}'),
        ":2: content must be text, not a number",
    ),
    "content null": ("t.jsonl", ours('{"role": "user", "content": null}'), ":2: content must be text, not null"),
    "role of a wrong type": (
        "t.jsonl",
        ours('{"role": ["user"], "content": "Hello."}'),
        ":2: role must be text, not a list",
    ),
    "partial of a wrong type": (
        "t.jsonl",
        ours(USER, '{"role": "assistant", "content": "H", "partial": 1}'),
        ":3: partial must be true or false, not a number",
    ),
    "text where stats have a number": (
        "t.jsonl",
        ours(USER, '{"role": "assistant", "content": "H", "stats": {"ttft_ms": "12"}}'),
        ":3: stats.ttft_ms must be a number or null, not text",
    ),
    "null where stats have a list": (
        "t.jsonl",
        ours(USER, '{"role": "assistant", "content": "H", "stats": {"itl_ms": null}}'),
        ":3: stats.itl_ms must be a list, not null",
    ),
    "stats of a wrong type": (
        "t.jsonl",
        ours(USER, '{"role": "assistant", "content": "H", "stats": []}'),
        ":3: stats must be an object, not a list",
    ),
    "message of a wrong type": (
        "t.jsonl",
        ours('"Hello."'),
        ":2: must be an object, not text; every message needs role and content",
    ),
    "half a character": (
        "t.jsonl",
        ours('{"role": "user", "content": "a\\ud83d"}'),
        ":2: content holds half a character (\\ud83d); remove it or write the whole pair",
    ),
    "unknown format, object": (
        "t.json",
        b'{\n "prompt": "Hello.",\n "answer": "Hi."\n}',
        f": unknown format (an object with 'prompt', 'answer'); {SUPPORTED}",
    ),
    "unknown format, lines": ("t.jsonl", lines("{}", GOOD), f":1: unknown format (an empty object); {SUPPORTED}"),
    "unknown format, scalar": ("t.json", b"3\n", f":1: unknown format (a number); {SUPPORTED}"),
    "unknown format, list of lists": ("t.json", b"[[]]", f": item 1: unknown format (a list); {SUPPORTED}"),
    "no dialogues": ("t.json", b"[]", ": is an empty list; there is no dialogue in it"),
    "OpenAI: no messages": (
        "t.jsonl",
        lines(GOOD, '{"messages": []}'),
        ":2: messages is empty; put messages in it or remove the dialogue",
    ),
    "OpenAI: messages of a wrong type": (
        "t.jsonl",
        lines('{"messages": "Hello."}'),
        ":1: messages must be a list, not text",
    ),
    "OpenAI: another record": (
        "t.jsonl",
        lines(GOOD, '{"prompt": "Hello."}'),
        ":2: messages is missing; every record needs it",
    ),
    "OpenAI: a record of a wrong type": (
        "t.jsonl",
        lines(GOOD, "[]"),
        ":2: must be an object, not a list; every record of this file (OpenAI messages) is an object with messages",
    ),
    "OpenAI: unknown role": (
        "t.jsonl",
        lines(GOOD, GOOD, record(messages=said(("user", "2+2?"), ("tool", "4")))),
        ":3: message 2: role 'tool' is unknown; use system, user, assistant",
    ),
    "OpenAI: tool call": (
        "t.jsonl",
        lines(
            record(
                messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [1]}]
            )
        ),
        ":1: message 2: tool_calls cannot be read; only messages of text can, remove the tool messages",
    ),
    "OpenAI: image": (
        "t.jsonl",
        lines(record(messages=said(("user", [{"type": "text", "text": "This?"}, {"type": "image_url"}])))),
        ":1: message 1: content part 2: type is 'image_url', but only text can be read; remove the part",
    ),
    "OpenAI: part without text": (
        "t.json",
        record(messages=said(("user", [{"type": "text"}]))).encode(),
        ":1: message 1: content part 1: text is missing; a part of type text needs it",
    ),
    "OpenAI: empty answer": (
        "t.jsonl",
        lines(record(messages=said(("user", "Hello."), ("assistant", "")))),
        ":1: message 2: content is empty; write something or remove the message",
    ),
    "OpenAI: only a system message": (
        "t.jsonl",
        lines(GOOD, record(messages=said(("system", "Be brief.")))),
        ":2: no message is the user's; a dialogue needs at least one",
    ),
    "one list of messages": (
        "t.json",
        json.dumps(said(("user", "Hello."), ("assistant", "Hi."), ("assistant", "Hm."))).encode(),
        ": item 3: role is assistant twice in a row; join the two or put the question between them",
    ),
    "one list of messages, a stranger in it": (
        "t.json",
        json.dumps([*said(("user", "Hello.")), "Hi."]).encode(),
        ": item 2: must be an object, not text; every message needs role and content",
    ),
    "vLLM: item 3": (
        "t.json",
        json.dumps(
            [{"id": n, "messages": said(("user", "a"), ("user" if n == 2 else "assistant", "b"))} for n in range(4)]
        ).encode(),
        ": item 3: message 2: role is user twice in a row; join the two or put the answer between them",
    ),
    "ShareGPT: unknown speaker": (
        "t.json",
        json.dumps([{"conversations": shared(("human", "a"), ("bard", "b"))}]).encode(),
        ": item 1: message 2: from 'bard' is unknown; use system, human, user, gpt, assistant, chatgpt, bing",
    ),
    "ShareGPT: assistant first": (
        "t.json",
        json.dumps([{"conversations": shared(("gpt", "a"))}], indent=2).encode(),
        ": item 1: message 1: from is assistant, but a dialogue begins with the user; put the question before it",
    ),
    "ShareGPT: missing value": (
        "t.json",
        json.dumps([{"conversations": [{"from": "human"}]}]).encode(),
        ": item 1: message 1: value is missing; every message needs from and value",
    ),
    "aiperf: image turn": (
        "t.jsonl",
        lines(record(session_id="s", turns=[{"text": "a"}, {"image": "b"}])),
        ":1: turn 2: text is missing; only turns of text can be read",
    ),
    "aiperf: answer": (
        "t.jsonl",
        lines(record(session_id="s", turns=[{"text": "a"}, {"role": "assistant", "text": "b"}])),
        ":1: turn 2: role 'assistant' is unknown here; only user turns can be read",
    ),
    "benchmark: no prompt": (
        "t.jsonl",
        lines(record(multi_turn=[{"question": "a"}])),
        ":1: turn 1: prompt_back is missing; a turn needs a prompt_POSITION field",
    ),
    "benchmark: another position": (
        "t.jsonl",
        lines(record(multi_turn=[{"prompt_back": "a"}, {"prompt_front": "b"}])),
        ":1: turn 2: prompt_back is missing; every turn needs what the first has",
    ),
    "benchmark: question nowhere": (
        "t.jsonl",
        lines(record(multi_turn=[{"prompt_middle": "a", "question_at_middle": "b"}])),
        ":1: turn 1: question_at_middle is not part of prompt_middle; write the question where it is asked",
    ),
    "SCBench: no context": (
        "t.jsonl",
        lines(record(id=1, multi_turns=[{"input": "a", "answer": "b"}])),
        ":1: context is missing; a record needs context and multi_turns",
    ),
    "SCBench: an answer missing": (
        "t.jsonl",
        lines(record(id=1, context="c", multi_turns=[{"input": "a"}, {"input": "b", "answer": "b"}])),
        ":1: answer is missing in 1 of 2 turns; give all of them or none",
    ),
}

# Here other records are good: without `strict` they are read, and one line is said.
LEFT_OUT = {
    "wrong JSON in OpenAI lines": "1 of 3 records left out (line 3): not valid JSON (1)",
    "wrong JSON in the first of many lines": "1 of 2 records left out (line 1): not valid JSON (1)",
    "unknown format, lines": "1 of 2 records left out (line 1): messages is missing (1)",
    "OpenAI: no messages": "1 of 2 records left out (line 2): messages is empty (1)",
    "OpenAI: another record": "1 of 2 records left out (line 2): messages is missing (1)",
    "OpenAI: a record of a wrong type": "1 of 2 records left out (line 2): must be an object, not a list (1)",
    "OpenAI: unknown role": "1 of 3 records left out (line 3): role 'tool' is unknown (1)",
    "OpenAI: only a system message": "1 of 2 records left out (line 2): no message is the user's (1)",
    "vLLM: item 3": "1 of 4 records left out (item 3): role is user twice in a row (1)",
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_file_is_told_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, data, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path(file).write_bytes(data)
    with pytest.raises(TranscriptError) as caught:
        read_dialogues(Path(file), strict=True)
    assert str(caught.value) == file + expected
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", CASES)
def test_without_strict_only_a_file_with_good_records_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, data, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path(file).write_bytes(data)
    told: list[str] = []
    if name in LEFT_OUT:
        assert read_dialogues(Path(file), told.append)
        assert told == [f"{file}: {LEFT_OUT[name]}; --strict refuses instead"]
    else:
        with pytest.raises(TranscriptError) as caught:
            read_dialogues(Path(file), told.append)
        assert (str(caught.value), told) == (file + expected, [])


def test_missing_file() -> None:
    with pytest.raises(TranscriptError, match="^nowhere.jsonl: no such file; check the path$"):
        read_dialogues(Path("nowhere.jsonl"))


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").mkdir()
    with pytest.raises(TranscriptError, match="^t: is a folder; give one of its files$"):
        read_dialogues(Path("t"))


def test_a_file_in_place_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_bytes(ours(USER))
    with pytest.raises(TranscriptError, match="^t/talk.jsonl: cannot be read: Not a directory$"):
        read_dialogues(Path("t/talk.jsonl"))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("t.jsonl")
    file.write_bytes(ours(USER))
    file.chmod(0o000)
    with without_rights(), pytest.raises(LoopserveError) as caught:
        read_dialogues(file)
    assert str(caught.value) == "t.jsonl: no permission to read it; change its mode or copy it"


def test_resume_refuses_other_formats_and_several_dialogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.jsonl").write_bytes(lines(GOOD))
    Path("two.jsonl").write_bytes(ours(USER) + ours(USER))
    with pytest.raises(TranscriptError) as caught:
        resume(Path("t.jsonl"))
    assert str(caught.value) == (
        "t.jsonl: is not a loopserve transcript, so it cannot be resumed; "
        "make one with: loopserve convert t.jsonl NEW.jsonl --to loopserve"
    )
    with pytest.raises(TranscriptError, match="^two.jsonl: holds 2 dialogues; only a file with one can be resumed$"):
        resume(Path("two.jsonl"))
