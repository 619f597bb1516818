"""Sets of dialogues and benchmarks, as published, read to the messages they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Dialogue, Message
from loopserve_cli.transcript import read_dialogues

SHORT = {"system": "s", "user": "u", "assistant": "a"}
ASKED = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
SAID = ["u Where?", "a Here."]


def turns(dialogue: Dialogue) -> list[str]:
    return [f"{SHORT[m.role]} {m.content}" for m in dialogue.messages]


def read(tmp_path: Path, records: Any, told: list[str] | None = None) -> list[Dialogue]:
    path = tmp_path / "t.jsonl"
    lines = records if isinstance(records, list) else [records]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_dialogues(path, pytest.fail if told is None else told.append)


# name -> (records, the dialogues' ids and messages)
CASES: dict[str, tuple[Any, dict[str, list[str]]]] = {
    "WildChat": (
        [{"conversation_hash": "ab12", "conversation": [{**m, "toxic": False, "language": "English"} for m in ASKED]}],
        {"ab12": SAID},
    ),
    "LMSYS-Chat": (
        [{"conversation_id": "c9", "model": "m", "conversation": ASKED, "turn": 1, "redacted": True}],
        {"c9": SAID},
    ),
    "role developer, parts of input and output": (
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [{"type": "input_text", "text": "Whe"}, {"type": "text", "text": "re?"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Here."}]},
            ]
        },
        {"t": ["s Be brief.", *SAID]},
    ),
    "OpenAI Responses": (
        {"model": "m", "instructions": "Be brief.", "input": [{"type": "message", **m} for m in ASKED]},
        {"t": ["s Be brief.", *SAID]},
    ),
    "OpenAI Responses, text": ({"model": "m", "input": "Where?"}, {"t": ["u Where?"]}),
    "Ollama chat": (
        {"model": "m", "messages": ASKED, "stream": False, "think": True, "options": {"seed": 1}},
        {"t": SAID},
    ),
    "Ollama generate": (
        [{"model": "m", "prompt": "Where?", "system": "Be brief.", "stream": False}],
        {"t": ["s Be brief.", "u Where?"]},
    ),
    "Ollama generate, answered": ({"model": "m", "prompt": "Where?", "response": "Here."}, {"t": SAID}),
    "MT-Bench": (
        [
            {"question_id": 7, "category": "humanities", "turns": ["Name a sea.", "And a bay?"]},
            {"question_id": 8, "turns": ["Count to two.", "On."], "reference": ["1, 2", "3"]},
            {"prompt_id": 9, "prompt": ["Sing.", "Louder."], "reference": []},
        ],
        {"7": ["u Name a sea.", "u And a bay?"], "8": ["u Count to two.", "u On."], "9": ["u Sing.", "u Louder."]},
    ),
    "MT-Bench-101": (
        {"task": "CM", "id": 4, "history": [{"user": "Where?", "bot": "Here."}, {"user": "Why?", "bot": "So."}]},
        {"4": [*SAID, "u Why?", "a So."]},
    ),
    "MultiChallenge": (
        {
            "QUESTION_ID": "q1",
            "AXIS": "INFERENCE_MEMORY",
            "CONVERSATION": [*ASKED, {"role": "user", "content": "Why?"}],
            "TARGET_QUESTION": "Does it say why?",
            "PASS_CRITERIA": "YES",
        },
        {"q1": [*SAID, "u Why?"]},
    ),
    "OASST tree: the best ranked, else the first, none that was deleted": (
        {
            "message_tree_id": "tree",
            "tree_state": "ready_for_export",
            "prompt": {
                "role": "prompter",
                "text": "Where?",
                "replies": [
                    {"role": "assistant", "text": "There.", "rank": 1, "replies": []},
                    {
                        "role": "assistant",
                        "text": "Here.",
                        "rank": 0,
                        "replies": [
                            {"role": "prompter", "text": "Gone.", "deleted": True},
                            {"role": "prompter", "text": "Why?", "rank": None},
                            {"role": "prompter", "text": "When?", "rank": None},
                        ],
                    },
                ],
            },
        },
        {"tree": [*SAID, "u Why?"]},
    ),
    "OASST messages: trees in turn, children before their parents": (
        [
            {
                "message_id": "2",
                "parent_id": "1",
                "message_tree_id": "x",
                "role": "assistant",
                "text": "No.",
                "rank": 1,
            },
            {"message_id": "9", "parent_id": None, "message_tree_id": "y", "role": "prompter", "text": "Alone?"},
            {"message_id": "1", "parent_id": None, "message_tree_id": "x", "role": "prompter", "text": "Where?"},
            {
                "message_id": "3",
                "parent_id": "1",
                "message_tree_id": "x",
                "role": "assistant",
                "text": "Here.",
                "rank": 0,
            },
        ],
        {"x": SAID, "y": ["u Alone?"]},
    ),
    "LongMemEval: sessions end to end, the same side twice is one message": (
        {
            "question_id": "gpt4_1",
            "question": "How many?",
            "answer": 3,
            "haystack_sessions": [
                [*ASKED, {"role": "user", "content": "Thanks."}],
                [{"role": "user", "content": "Hi.", "has_answer": True}, {"role": "assistant", "content": "Yes?"}],
                [{"role": "user", "content": ""}],
                [],
            ],
            "answer_session_ids": ["s2"],
        },
        {"gpt4_1": [*SAID, "u Thanks.\n\nHi.", "a Yes?", "u How many?", "a 3"]},
    ),
    "LoCoMo": (
        {
            "sample_id": "conv-1",
            "conversation": {
                "speaker_a": "Ann",
                "speaker_b": "Bo",
                "session_10_date_time": "noon on 2 May",
                "session_10": [{"speaker": "Bo", "dia_id": "D10:1", "text": "Look.", "blip_caption": "a red kite"}],
                "session_2_date_time": "noon on 1 May",
                "session_2": [
                    {"speaker": "Ann", "dia_id": "D2:1", "text": "Hi Bo."},
                    {"speaker": "Bo", "dia_id": "D2:2", "text": "Hi Ann."},
                ],
            },
            "qa": [
                {"question": "Who?", "answer": "Bo", "evidence": ["D2:1"], "category": 1},
                {"question": "When?", "answer": 2022, "category": 2},
            ],
            "event_summary": {"events_session_1": {}},
        },
        {
            "conv-1": [
                "u noon on 1 May\nAnn: Hi Bo.\nBo: Hi Ann.\n\nnoon on 2 May\nBo: Look. [shares a picture: a red kite]"
                "\n\nWho?",
                "a Bo",
                "u When?",
                "a 2022",
            ]
        },
    ),
    "LoCoMo, sessions beside the questions": (
        {"session_1": [{"speaker": "Ann", "text": "Hi."}], "qa": [{"question": "Who?"}, {"question": "When?"}]},
        {"t": ["u Ann: Hi.\n\nWho?", "u When?"]},
    ),
    "LoCoMo, flattened, each under its name": (
        {
            "first": {
                "conversation": [
                    {"timestamp": "1 May", "speaker": "Ann", "text": "Hi."},
                    {"timestamp": "1 May", "speaker": "Bo", "text": "Ho."},
                    {"timestamp": "2 May", "speaker": "Ann", "text": "Hm."},
                ],
                "question": [{"question": "Who?", "answer": "Bo", "category": 1}],
            },
            "second": {"conversation": [{"timestamp": "3 May", "speaker": "Cy", "text": "Hey."}], "question": []},
        },
        {"first": ["u 1 May\nAnn: Hi.\nBo: Ho.\n\n2 May\nAnn: Hm.\n\nWho?", "a Bo"], "second": ["u 3 May\nCy: Hey."]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_published_format(name: str, tmp_path: Path) -> None:
    records, expected = CASES[name]
    assert {d.id: turns(d) for d in read(tmp_path, records)} == expected


def test_what_a_model_thought_stands_apart(tmp_path: Path) -> None:
    question = {"role": "user", "content": "Where?"}
    thought = {"role": "assistant", "content": "Here.", "reasoning_content": "Let me look."}
    rows = [
        {"messages": [question, thought]},
        {"messages": [question, {"role": "assistant", "content": "Here.", "thinking": "Let me look."}]},
        {
            "messages": [
                question,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "Let me look."}]},
                        {"type": "text", "text": "Here."},
                    ],
                },
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "Where?"},
                {"from": "gpt", "value": "Here.", "reasoning": "Let me look."},
            ]
        },
        {
            "input": [
                question,
                {"type": "reasoning", "summary": [{"text": "Let me look."}]},
                thought | {"reasoning_content": ""},
            ]
        },
    ]
    for row in rows:
        (dialogue,) = read(tmp_path, row)
        assert dialogue.messages == (Message("user", "Where?"), Message("assistant", "Here.", reasoning="Let me look."))


def test_a_bad_turn_of_a_session_takes_out_the_session_and_no_other(tmp_path: Path) -> None:
    told: list[str] = []
    rows = [
        {"session_id": "a", "text": "One."},
        {"session_id": "b", "text": "Two."},
        {"session_id": "a", "text": 3},
    ]
    (dialogue,) = read(tmp_path, rows, told)
    assert (dialogue.id, turns(dialogue)) == ("b", ["u Two."])
    assert told == [
        f"{tmp_path / 't.jsonl'}: 2 of 3 records left out (lines 1, 3): text must be text, not a number (2); "
        "--strict refuses instead"
    ]


def test_questions_of_locomo_without_an_answer_are_named(tmp_path: Path) -> None:
    told: list[str] = []
    qa = [{"question": "Who?", "answer": "Bo"}, {"question": "Why?", "adversarial_answer": "So", "category": 5}]
    (dialogue,) = read(tmp_path, {"session_1": [{"speaker": "Ann", "text": "Hi."}], "qa": qa}, told)
    assert turns(dialogue) == ["u Ann: Hi.\n\nWho?", "a Bo"]
    assert told == [
        f"{tmp_path / 't.jsonl'}: left out of the prompts: questions without an answer (in 1 of 1 dialogues)"
    ]


# name -> (record, what follows the file's name and line in the error)
WRONG: dict[str, tuple[Any, str]] = {
    "OASST: no root": (
        {"message_id": "2", "parent_id": "1", "message_tree_id": "x", "role": "assistant", "text": "No."},
        "no message of the tree is without parent_id; a tree begins with one",
    ),
    "OASST: role": (
        {"message_tree_id": "x", "prompt": {"role": "moderator", "text": "a"}},
        "message 1: role 'moderator' is unknown; use system, user, assistant",
    ),
    "LongMemEval: no question": (
        {"haystack_sessions": [ASKED], "answer": "b"},
        "question is missing; a record needs haystack_sessions and question",
    ),
    "LoCoMo: a turn without text": (
        {"session_1_date_time": "noon", "session_1": [{"speaker": "Ann"}]},
        "noon: turn 1: text is missing; every turn needs speaker and text",
    ),
    "MT-Bench-101: an answer missing": (
        {"history": [{"user": "a"}, {"user": "b", "bot": "c"}]},
        "answer is missing in 1 of 2 turns; give all of them or none",
    ),
    "Responses: a tool's call": (
        {"model": "m", "input": [*ASKED, {"type": "function_call", "name": "f"}]},
        "input 3: is no message; only messages of text can be read, remove the tool calls",
    ),
    "WildChat: nobody asks": (
        {"conversation": [{"role": "system", "content": "a"}]},
        "no message is the user's; a dialogue needs at least one",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    record, expected = WRONG[name]
    with pytest.raises(TranscriptError) as caught:
        read(tmp_path, record)
    assert str(caught.value) == f"{tmp_path / 't.jsonl'}:1: {expected}"


def test_ids_of_a_tree_that_a_table_made_floats_are_the_same(tmp_path: Path) -> None:
    rows = [
        {"message_id": 1, "parent_id": None, "message_tree_id": 1, "role": "prompter", "text": "Where?"},
        {"message_id": 2, "parent_id": 1.0, "message_tree_id": 1, "role": "assistant", "text": "Here."},
    ]
    assert [m.content for m in read(tmp_path, rows)[0].messages] == ["Where?", "Here."]


def test_a_reply_to_no_message_is_not_passed_over(tmp_path: Path) -> None:
    rows = [
        {"message_id": "a", "parent_id": None, "message_tree_id": "a", "role": "prompter", "text": "Where?"},
        {"message_id": "c", "parent_id": "b", "message_tree_id": "a", "role": "assistant", "text": "Here."},
    ]
    with pytest.raises(TranscriptError, match="parent_id 'b' names no message"):
        read(tmp_path, rows)
