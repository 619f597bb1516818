"""Lists of messages, as most formats have them: role and content, or from and value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.order import check_next
from loopserve_cli.transcript.ours import NEEDS, ROLES
from loopserve_cli.transcript.place import Place, as_object, as_text, kind, need, shown

SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
}
# Newer and other names, read everywhere, as all are in small letters or capitals.
OTHER_ROLES: dict[str, Role] = {
    "developer": "system",
    "prompter": "user",
    "human": "user",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
}
REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_text", "reasoning_details")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHT_PARTS = ("thinking", "reasoning")


def messages(rows: list[Any], place: Place, roles: dict[str, Role] = ROLES, items: bool = False) -> list[Message]:
    """Messages of role and content (the role one of `roles`), or of from and value; checked, and in order.

    `items`: the rows are the file's own list, so that their places are items and not messages of a record.
    """
    said: list[Message] = []
    for number, value in enumerate(rows, 1):
        where = Place(place.file, item=number) if items else place.within(f"message {number}")
        name = role_field(as_object(value, where, NEEDS))
        message = message_of(value, where, roles)
        said.append(message)
        check_next(said[-2].role if len(said) > 1 else None, message.role, where, name)
    check_asked(said, place)
    return said


def message_of(row: dict[str, Any], place: Place, roles: dict[str, Role] = ROLES) -> Message:
    """One message with what was thought before it, where it stands beside the content or among its parts."""
    name = role_field(row)
    text, known = ("value", SHAREGPT_ROLES) if name == "from" else ("content", roles)
    needs = f"every message needs {name} and {text}"
    role_name = as_text(need(row, name, place, needs), name, place)
    plain = role_name.strip().lower()
    role = known.get(plain) or OTHER_ROLES.get(plain)
    if role is None:
        raise place.error(f"{name} {shown(role_name)} is unknown; use {', '.join(known)}")
    for call in ("tool_calls", "function_call"):
        if row.get(call):
            raise place.error(f"{call} cannot be read; only messages of text can, remove the tool messages")
    content, thought = content_of(need(row, text, place, needs), text, place)
    beside = [row[field] for field in REASONING if isinstance(row.get(field), str)]
    thoughts = next((as_text(value, "reasoning", place) for value in beside if value.strip()), thought)
    return Message(role, content, reasoning=thoughts if role == "assistant" else None)


def content_of(value: Any, name: str, place: Place) -> tuple[str, str | None]:
    """A message's text and its reasoning; of a list the parts of text are joined, and anything else is refused."""
    if not isinstance(value, list):
        return as_text(value, name, place), None
    texts, thoughts = [], []
    for number, part in enumerate(value, 1):
        where = place.within(f"{place.part + ': ' if place.part else ''}{name} part {number}")
        part_type = as_object(part, where, "every part needs type and text").get("type")
        if part_type in THOUGHT_PARTS:
            thoughts += thought_texts(part.get(part_type, part.get("text")), where)
        elif part_type in TEXT_PARTS:
            text = need(part, "text", where, f"a part of type {part_type} needs it")
            texts.append(as_text(text, "text", where, True))
        else:
            given = shown(part_type) if isinstance(part_type, str) else kind(part_type)
            raise where.error(f"type is {given}, but only text can be read; remove the part")
    return as_text("".join(texts), name, place), "".join(thoughts).strip() or None


def thought_texts(value: Any, place: Place) -> list[str]:
    """The texts of a part of reasoning: text itself, or a list of parts with text."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return [as_text(text, "reasoning", place, True) for text in texts if text is not None]


def joined(said: Iterable[Message], place: Place) -> list[Message]:
    """Messages as chat programs keep them: what one side says in a row is one message, with blank lines between.

    Programs write an answer in pieces (around a tool's use, or when asked to go on), and a question again
    after an error. Blank messages say nothing and are dropped; a thought before an answer goes to that answer.
    """
    whole: list[Message] = []
    thought = ""
    for message in said:
        if message.role != "assistant":
            message = replace(message, reasoning=None)
        if not message.content.strip():
            thought = _both(thought, message.reasoning or "")
            continue
        if message.role == "assistant" and thought:
            message = replace(message, reasoning=_both(thought, message.reasoning or ""))
        thought = ""
        if whole and whole[-1].role == message.role:
            message = _merged(whole.pop(), message)
        whole.append(message)
    for number, message in enumerate(whole, 1):
        previous = whole[number - 2].role if number > 1 else None
        check_next(previous, message.role, place.within(f"message {number}"))
    check_asked(whole, place)
    return whole


def check_asked(said: list[Message], place: Place) -> None:
    """Raise unless a user says something."""
    if not any(message.role == "user" for message in said):
        raise place.error("no message is the user's; a dialogue needs at least one")


def role_field(row: dict[str, Any]) -> str:
    """The field that says who speaks."""
    return "from" if "from" in row or ("value" in row and "role" not in row) else "role"


def is_message(value: Any) -> bool:
    """Whether a record is one message rather than a dialogue."""
    return isinstance(value, dict) and any(name in value for name in ("role", "content", "from"))


def _merged(first: Message, second: Message) -> Message:
    thought = _both(first.reasoning or "", second.reasoning or "")
    return Message(first.role, _both(first.content, second.content), reasoning=thought or None)


def _both(first: str, second: str) -> str:
    """Two texts with a blank line between, where there are two."""
    return "\n\n".join(text for text in (first, second) if text)
