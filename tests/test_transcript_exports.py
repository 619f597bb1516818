"""What chat programs export is read as it was shown: one branch, tools left out and named, thoughts apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_transcript_formats import turns

from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Dialogue, Message
from loopserve_cli.transcript import read_dialogues


def read(tmp_path: Path, document: Any, told: list[str] | None = None) -> list[Dialogue]:
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(document, indent=1))
    return read_dialogues(path, pytest.fail if told is None else told.append)


def lost(tmp_path: Path, fields: str) -> str:
    return f"{tmp_path / 'conversations.json'}: left out of the prompts: {fields}"


def node(parent: str | None, children: list[str], role: str = "", **message: Any) -> dict[str, Any]:
    text = message.pop("text", None)
    content = message.pop("content", {"content_type": "text", "parts": [text]})
    said = (
        {"author": {"role": role}, "content": content, "recipient": "all", "metadata": {}, **message} if role else None
    )
    return {"message": said, "parent": parent, "children": children}


def chatgpt(nodes: dict[str, Any], current: str | None) -> list[dict[str, Any]]:
    return [{"title": "A sea", "conversation_id": "c1", "mapping": nodes, "current_node": current}]


BRANCHED = {
    "root": node(None, ["sys"]),
    "sys": node("root", ["q"], "system", text=""),
    "q": node("sys", ["a1", "a2"], "user", text="Name a sea."),
    "a1": node("q", ["more"], "assistant", text="The Baltic."),
    "more": node("a1", [], "user", text="Colder."),
    "a2": node("q", [], "assistant", text="The Aral."),
}


def test_chatgpt_gives_the_branch_that_was_shown(tmp_path: Path) -> None:
    (dialogue,) = read(tmp_path, chatgpt(BRANCHED, "more"))
    assert (dialogue.id, turns(dialogue)) == ("c1", ["u Name a sea.", "a The Baltic.", "u Colder."])
    assert turns(read(tmp_path, chatgpt(BRANCHED, "a2"))[0]) == ["u Name a sea.", "a The Aral."]
    assert turns(read(tmp_path, chatgpt(BRANCHED, None))[0]) == ["u Name a sea.", "a The Aral."]


def test_chatgpt_names_files_that_were_attached(tmp_path: Path) -> None:
    told: list[str] = []
    asked = node(None, [], "user", text="Sum it up.", metadata={"attachments": [{"name": "a.pdf"}]})
    read(tmp_path, chatgpt({"q": asked}, "q"), told)
    assert told == [lost(tmp_path, "attachments (in 1 of 1 dialogues)")]


def test_chatgpt_leaves_out_what_was_not_shown_and_names_what_shaped_the_prompt(tmp_path: Path) -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    instructed = {"content_type": "user_editable_context", "user_instructions": "Be brief."}
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "Seas", "content": "Which one?"}]}
    nodes = {
        "0": node(None, ["1"], "user", content=instructed, metadata=hidden),
        "1": node("0", ["2"], "system", text="Internal.", metadata=hidden),
        "2": node("1", ["3"], "user", content={"content_type": "multimodal_text", "parts": ["Name ", "a sea."]}),
        "3": node("2", ["4"], "assistant", content=thoughts),
        "4": node("3", ["5"], "assistant", text="I look it up."),
        "5": node("4", ["6"], "assistant", content={"content_type": "code", "text": "seas()"}, recipient="python"),
        "6": node("5", ["7"], "tool", content={"content_type": "execution_output", "text": "Baltic"}),
        "7": node("6", ["8"], "assistant", content={"content_type": "reasoning_recap", "content": "Thought for 5s"}),
        "8": node("7", [], "assistant", text="The Baltic."),
    }
    told: list[str] = []
    (dialogue,) = read(tmp_path, chatgpt(nodes, "8"), told)
    assert dialogue.messages == (
        Message("user", "Name a sea."),
        Message("assistant", "I look it up.\n\nThe Baltic.", reasoning="Which one?"),
    )
    assert len(told) == 1
    for name in ("messages of tools (in 1 of 1 dialogues)", "custom instructions (in 1 of 1 dialogues)"):
        assert name in told[0]


def test_what_was_spoken_to_chatgpt_is_text(tmp_path: Path) -> None:
    parts = [{"content_type": "audio_transcription", "text": "Name a sea."}, {"content_type": "audio_asset_pointer"}]
    spoken = {"content_type": "multimodal_text", "parts": parts}
    (dialogue,) = read(tmp_path, chatgpt({"q": node(None, [], "user", content=spoken)}, "q"))
    assert turns(dialogue) == ["u Name a sea."]


def test_a_chat_with_a_picture_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    parts = {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "What is it?"]}
    told: list[str] = []
    seen = chatgpt({"q": node(None, [], "user", content=parts)}, "q")
    (dialogue,) = read(tmp_path, seen + chatgpt(BRANCHED, "a2"), told)
    assert turns(dialogue) == ["u Name a sea.", "a The Aral."]
    assert told == [
        f"{tmp_path / 'conversations.json'}: 1 of 2 records left out (item 1): a part is 'image_asset_pointer', "
        "but only text can be read (1); --strict refuses instead"
    ]


@pytest.mark.parametrize(
    ("nodes", "current", "expected"),
    [
        (BRANCHED, "gone", "current_node names no message of mapping; export the dialogue again"),
        (
            {"a": node("b", [], "user", text="x"), "b": node("a", [], "user", text="y")},
            "a",
            "its messages are each other's parents; export the dialogue again",
        ),
        ({"a": node(None, [])}, "a", "no message is the user's; a dialogue needs at least one"),
    ],
)
def test_a_broken_tree_is_told(nodes: dict[str, Any], current: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(TranscriptError) as caught:
        read(tmp_path, chatgpt(nodes, current))
    assert str(caught.value) == f"{tmp_path / 'conversations.json'}: item 1: {expected}"


def claude(*messages: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"uuid": "u1", "name": "Seas", "chat_messages": list(messages), **more}]


def test_claude(tmp_path: Path) -> None:
    blocks = [
        {"type": "thinking", "thinking": "Which one?"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "name": "web_search", "input": {}},
        {"type": "tool_result", "content": []},
        {"type": "text", "text": "The Baltic."},
    ]
    told: list[str] = []
    notes = {"file_name": "notes.txt", "extracted_content": "Seas: Baltic, Aral."}
    asked = {"sender": "human", "text": "Name one.", "content": [{"type": "text", "text": "Name one."}]}
    (dialogue,) = read(
        tmp_path,
        claude(
            {**asked, "attachments": [notes], "files": [{"file_name": "map.png"}]},
            {"sender": "assistant", "text": "A tool was used.", "content": blocks[2:4]},
            {"sender": "assistant", "text": "This block is not supported.", "content": blocks},
            {"sender": "human", "text": "Thanks."},
        ),
        told,
    )
    assert dialogue.id == "u1"
    assert dialogue.messages == (
        Message("user", "Seas: Baltic, Aral.\n\nName one."),
        Message("assistant", "I look.\n\nThe Baltic.", reasoning="Which one?"),
        Message("user", "Thanks."),
    )
    assert len(told) == 1
    assert "messages of tools (in 1 of 1 dialogues)" in told[0]
    assert "files (in 1 of 1 dialogues)" in told[0]


def test_claude_with_parents_gives_the_newest_branch(tmp_path: Path) -> None:
    none = "00000000-0000-4000-8000-000000000000"
    rows = [
        {"uuid": "1", "sender": "human", "text": "Name a sea.", "parent_message_uuid": none},
        {"uuid": "2", "sender": "assistant", "text": "The Aral.", "parent_message_uuid": "1"},
        {"uuid": "3", "sender": "assistant", "text": "The Baltic.", "parent_message_uuid": "1"},
    ]
    assert turns(read(tmp_path, claude(*rows))[0]) == ["u Name a sea.", "a The Baltic."]
    (older,) = read(tmp_path, claude(*rows, current_leaf_message_uuid="2"))
    assert turns(older) == ["u Name a sea.", "a The Aral."]


def webui(messages: list[dict[str, Any]], current: str, **chat: Any) -> list[dict[str, Any]]:
    history = {"messages": {m["id"]: m for m in messages}, "currentId": current}
    return [{"id": "w1", "title": "Seas", "chat": {"history": history, "messages": [], **chat}}]


def test_open_webui(tmp_path: Path) -> None:
    folded = (
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
        "> Is 1 &lt; 2?\n> Yes.\n</details>\nThe Baltic."
    )
    rows = [
        {"id": "1", "parentId": None, "role": "user", "content": "Name a sea.", "models": ["m"]},
        {"id": "2", "parentId": "1", "role": "assistant", "content": folded},
        {"id": "3", "parentId": "1", "role": "assistant", "content": "The Aral."},
        {"id": "4", "parentId": "2", "role": "user", "content": "Go on.", "files": [{"name": "a.pdf"}]},
    ]
    told: list[str] = []
    (dialogue,) = read(tmp_path, webui(rows, "4", params={"system": "Be brief."}), told)
    assert dialogue.id == "w1"
    assert dialogue.messages == (
        Message("system", "Be brief."),
        Message("user", "Name a sea."),
        Message("assistant", "The Baltic.", reasoning="Is 1 < 2?\nYes."),
        Message("user", "Go on."),
    )
    assert told == [lost(tmp_path, "files (in 1 of 1 dialogues)")]
    assert turns(read(tmp_path, webui(rows, "3"))[0]) == ["u Name a sea.", "a The Aral."]


def test_what_a_user_of_open_webui_pasted_is_not_unfolded(tmp_path: Path) -> None:
    pasted = '<details type="reasoning">mine</details> Why?'
    (dialogue,) = read(tmp_path, webui([{"id": "1", "role": "user", "content": pasted}], "1"))
    assert turns(dialogue) == [f"u {pasted}"]


def test_llm_logs_newest_first(tmp_path: Path) -> None:
    rows = [
        {
            "id": "03",
            "conversation_id": "x",
            "datetime_utc": "2026-01-02T09:05:00",
            "prompt": "Why?",
            "system": None,
            "response": "So.",
        },
        {
            "id": "02",
            "conversation_id": "y",
            "datetime_utc": "2026-01-02T09:01:00",
            "prompt": "Hi.",
            "system": "",
            "response": "Hello.",
        },
        {
            "id": "01",
            "conversation_id": "x",
            "datetime_utc": "2026-01-02T09:00:00",
            "prompt": "Where?",
            "prompt_fragments": [{"hash": "h", "content": "A map."}],
            "system": "Be brief.",
            "response": "Here.",
        },
    ]
    first, second = read(tmp_path, rows)
    assert (first.id, turns(first)) == ("x", ["s Be brief.", "u A map.\nWhere?", "a Here.", "u Why?", "a So."])
    assert (second.id, turns(second)) == ("y", ["u Hi.", "a Hello."])
