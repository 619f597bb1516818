"""The formats of others: one record, as parsed JSON, to the dialogues it holds.

| format | told by | a record |
|---|---|---|
| OpenAI messages, vLLM | messages | `{"id"?, "messages": [{"role", "content"}]}` |
| ShareGPT | conversations | `{"id"?, "conversations": [{"from", "value"}]}`, or with role and content |
| aiperf | turns, session_id | `{"session_id"?, "turns": [{"text"}]}` or `{"session_id", "text"}`: questions only |
| LoopServe benchmark | multi_turn | `{"multi_turn": [{"prompt_back", "question_at_back"?, "answer"?}]}` |
| SCBench | multi_turns | `{"id", "context", "multi_turns": [{"input", "answer"?}]}` |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.order import check_next
from loopserve_cli.transcript.ours import NEEDS, ROLES
from loopserve_cli.transcript.place import Place, as_list, as_object, as_text, kind, need, shown

SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A dialogue as it stands in a file; `id` is None where the record has none, `label` tells its variants apart."""

    id: str | None
    messages: list[Message]
    place: Place
    label: str = ""
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """One format: the fields that tell it, any of which will do, and how a record is read."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[dict[str, Any], Place], list[Found]]


def openai(record: dict[str, Any], place: Place) -> list[Found]:
    """OpenAI messages; vLLM's multi-turn files are the same with an id."""
    rows = as_list(need(record, "messages", place, "every record needs it"), "messages", place)
    return [Found(_id(record, "id", place), messages(rows, place), place)]


def sharegpt(record: dict[str, Any], place: Place) -> list[Found]:
    """ShareGPT, from/value or role/content."""
    rows = as_list(need(record, "conversations", place, "every record needs it"), "conversations", place)
    return [Found(_id(record, "id", place), messages(rows, place, SHAREGPT_ROLES), place)]


def aiperf(record: dict[str, Any], place: Place) -> list[Found]:
    """aiperf: user turns whose answers nobody knows; delays are passed over."""
    if "turns" in record:
        turns = as_list(record["turns"], "turns", place)
        places = [place.within(f"turn {number}") for number in range(1, len(turns) + 1)]
    else:
        turns, places = [record], [place]
    said = []
    for where, value in zip(places, turns, strict=True):
        turn = as_object(value, where, "every turn needs text")
        if turn.get("role", "user") not in ("user", None):
            raise where.error(f"role {shown(str(turn['role']))} is unknown here; only user turns can be read")
        text = need(turn, "text", where, "only turns of text can be read")
        said.append(Message("user", as_text(text, "text", where)))
    return [Found(_id(record, "session_id", place), said, place)]


def loopserve_benchmark(record: dict[str, Any], place: Place) -> list[Found]:
    """LoopServe's benchmark: a dialogue for every question position, which the names of the prompts tell.

    `prompt_back` is a turn's whole text with the question at its back; where a prompt lacks its
    `question_at_back` or `question_at_front`, the question is put at that end.
    """
    needs = "every record needs a list of turns"
    turns = as_list(need(record, "multi_turn", place, needs), "multi_turn", place)
    first = as_object(turns[0], place.within("turn 1"), "a turn needs prompt_front or prompt_back")
    positions = [n.removeprefix("prompt_") for n, v in first.items() if n.startswith("prompt_") and v is not None]
    if not positions:
        raise place.within("turn 1").error("prompt_back is missing; a turn needs a prompt_POSITION field")
    found = []
    for position in positions:
        said = []
        for number, value in enumerate(turns, 1):
            where = place.within(f"turn {number}")
            turn = as_object(value, where, f"every turn needs prompt_{position}")
            said.append(Message("user", _positioned(turn, position, where)))
            said += _answer(turn, "answer" if "answer" in turn else "answers", where)
        _check_answers(said, place)
        found.append(Found(_id(record, "id", place), said, place, position))
    return found


def scbench(record: dict[str, Any], place: Place) -> list[Found]:
    """SCBench: the shared context goes before the first question; of several accepted answers the first is taken."""
    needs = "a record needs context and multi_turns"
    context = need(record, "context", place, needs)
    if isinstance(context, list):  # the "find the number" task gives its context as a list of numbers
        context = json.dumps(context, ensure_ascii=False)
    context = as_text(context, "context", place)
    said: list[Message] = []
    for number, value in enumerate(as_list(need(record, "multi_turns", place, needs), "multi_turns", place), 1):
        where = place.within(f"turn {number}")
        turn = as_object(value, where, "every turn needs input")
        question = as_text(need(turn, "input", where, "every turn needs input"), "input", where)
        said.append(Message("user", f"{context}\n\n{question}" if number == 1 else question))
        said += _answer(turn, "answer", where)
    _check_answers(said, place)
    return [Found(_id(record, "id", place), said, place)]


# The order matters where a record has the fields of two: what is more particular comes first.
FORMATS = (
    Format("SCBench", ("multi_turns",), scbench),
    Format("LoopServe benchmark", ("multi_turn",), loopserve_benchmark),
    Format("ShareGPT", ("conversations",), sharegpt),
    Format("OpenAI messages", ("messages",), openai),
    Format("aiperf", ("turns", "session_id"), aiperf),
)


def messages(rows: list[Any], place: Place, roles: dict[str, Role] = ROLES, items: bool = False) -> list[Message]:
    """Messages of role and content (the role one of `roles`), or of from and value; checked, and in order.

    `items`: the rows are the file's own list, so that their places are items and not messages of a record.
    """
    said: list[Message] = []
    for number, value in enumerate(rows, 1):
        where = Place(place.file, item=number) if items else place.within(f"message {number}")
        row = as_object(value, where, NEEDS)
        shared = "from" in row or ("value" in row and "role" not in row)
        name, text, known = ("from", "value", SHAREGPT_ROLES) if shared else ("role", "content", roles)
        needs = f"every message needs {name} and {text}"
        role_name = as_text(need(row, name, where, needs), name, where)
        if role_name not in known:
            raise where.error(f"{name} {shown(role_name)} is unknown; use {', '.join(known)}")
        role = known[role_name]
        said.append(Message(role, _content(row, text, where, needs)))
        check_next(said[-2].role if len(said) > 1 else None, role, where, name)
    if not any(m.role == "user" for m in said):
        raise place.error("no message is the user's; a dialogue needs at least one")
    return said


def is_message(value: Any) -> bool:
    """Whether a record is one message rather than a dialogue."""
    return isinstance(value, dict) and any(name in value for name in ("role", "content", "from"))


def _content(row: dict[str, Any], name: str, place: Place, needs: str) -> str:
    """A message's text; OpenAI's list of parts is joined, and anything but text refused."""
    for call in ("tool_calls", "function_call"):
        if row.get(call):
            raise place.error(f"{call} cannot be read; only messages of text can, remove the tool messages")
    value = need(row, name, place, needs)
    if not isinstance(value, list):
        return as_text(value, name, place)
    texts = []
    for number, part in enumerate(value, 1):
        where = place.within(f"{place.part + ': ' if place.part else ''}{name} part {number}")
        part_type = as_object(part, where, "every part needs type and text").get("type")
        if part_type != "text":
            given = shown(part_type) if isinstance(part_type, str) else kind(part_type)
            raise where.error(f"type is {given}, but only text can be read; remove the part")
        texts.append(as_text(need(part, "text", where, "a part of type text needs it"), "text", where, True))
    return as_text("".join(texts), name, place)


def _id(record: dict[str, Any], name: str, place: Place) -> str | None:
    """The record's id as text, or None where it has none."""
    value = record.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value is None else as_text(value, name, place)


def _positioned(turn: dict[str, Any], position: str, place: Place) -> str:
    """The prompt of one question position, with the question in it."""
    name = f"prompt_{position}"
    prompt = as_text(need(turn, name, place, "every turn needs what the first has"), name, place)
    if turn.get(f"question_at_{position}") is None:
        return prompt
    question = as_text(turn[f"question_at_{position}"], f"question_at_{position}", place)
    if question.strip() in prompt:
        return prompt
    if position == "front":
        return f"{question}\n\n{prompt}"
    if position == "back":
        return f"{prompt}\n\n{question}"
    raise place.error(f"question_at_{position} is not part of {name}; write the question where it is asked")


def _answer(turn: dict[str, Any], name: str, place: Place) -> list[Message]:
    """The turn's answer as a message, or nothing where there is none; of a list the first, a number as text."""
    value = turn.get(name)
    if isinstance(value, list):
        value = as_list(value, name, place)[0]
    if value is None:
        return []
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return [Message("assistant", as_text(value, name, place))]


def _check_answers(said: list[Message], place: Place) -> None:
    """Every turn but the last has an answer, or none has."""
    questions = sum(m.role == "user" for m in said)
    answers = len(said) - questions
    if answers and (answers < questions - 1 or (answers == questions - 1 and said[-1].role != "user")):
        raise place.error(f"answer is missing in {questions - answers} of {questions} turns; give all of them or none")
