"""ChatGPT's export, conversations.json: a tree of messages, of which the branch that was shown is read."""

from __future__ import annotations

from typing import Any

from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.formats.beside import TOOLS, dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record
from loopserve_cli.transcript.formats.rows import joined
from loopserve_cli.transcript.formats.trees import branch_to
from loopserve_cli.transcript.place import Place, as_object, as_text, kind, need, shown

ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
# What the program adds of its own; a recap only says how long was thought.
INSTRUCTIONS = ("user_editable_context", "model_editable_context")
RECAP = "reasoning_recap"
SPOKEN = "audio_transcription"


def chatgpt(record: Record, place: Place) -> Found:
    """From the message that was shown last up to the root. Hidden messages are no part of the dialogue.

    Uses of tools are left out, and named; what one side says in a row then becomes one message.
    """
    mapping = as_object(need(record, "mapping", place, "every record needs it"), place, "mapping needs messages")
    said: list[Message] = []
    lost: set[str] = set()
    for node in branch_to(_leaf(record, mapping, place), mapping, lambda node: node.get("parent"), place):
        if node.get("message") is None:
            continue
        where = place.within(f"message {len(said) + 1}")
        row = as_object(node["message"], where, "a message needs author and content")
        dropped = _dropped(row)
        if dropped is None:
            said.append(_message(row, where))
            lost |= lost_in([_object(row, "metadata")]) & {"attachments"}
        elif dropped:
            lost.add(dropped)
    return dialogue(record, joined(said, place), place, ("conversation_id", "id"), lost)


def _leaf(record: Record, mapping: Record, place: Place) -> str:
    """The last message that was shown; older exports do not say it, and show the newest branch."""
    leaf = record.get("current_node")
    if isinstance(leaf, str) and leaf in mapping:
        return leaf
    if leaf is not None or not mapping:
        raise place.error("current_node names no message of mapping; export the dialogue again")
    name = next((name for name, node in mapping.items() if isinstance(node, dict) and not node.get("parent")), None)
    if name is None:
        raise place.error("no message of mapping is without parent; export the dialogue again")
    for _ in mapping:
        node = mapping[name]
        children = node.get("children") if isinstance(node, dict) else None
        last = children[-1] if isinstance(children, list) and children else None
        if not isinstance(last, str) or last not in mapping:
            break
        name = last
    return name


def _dropped(row: Record) -> str | None:
    """None for a message of the dialogue; else what is lost with it, perhaps nothing worth a word."""
    content, metadata, author = _object(row, "content"), _object(row, "metadata"), _object(row, "author")
    if content.get("content_type") in INSTRUCTIONS:
        return "custom instructions"
    if author.get("role") == "tool" or row.get("recipient") not in (None, "all"):
        return TOOLS
    hidden = bool(metadata.get("is_visually_hidden_from_conversation"))
    return "" if hidden or content.get("content_type") == RECAP else None


def _message(row: Record, place: Place) -> Message:
    author = _object(row, "author").get("role")
    role = ROLES.get(author) if isinstance(author, str) else None
    if role is None:
        raise place.error(f"role is {shown(str(author))}, but must be {', '.join(ROLES)} or tool")
    content = as_object(row.get("content"), place, "a message needs content")
    if content.get("content_type") == "thoughts":
        return Message(role, "", reasoning=_thoughts(content, place))
    parts = content.get("parts", [content.get("text")])
    if not isinstance(parts, list):
        raise place.error(f"parts must be a list, not {kind(parts)}")
    spoken = any(_part_type(part) == SPOKEN for part in parts)
    return Message(role, "".join(_part(part, spoken, place) for part in parts))


def _part(part: Any, spoken: bool, place: Place) -> str:
    """A part's text; the sound of what was spoken has it in a part of its own."""
    part_type = _part_type(part)
    if spoken and "audio" in part_type and part_type != SPOKEN:
        return ""
    if isinstance(part, dict):
        if part_type not in ("text", SPOKEN):
            raise place.error(f"a part is {shown(part_type)}, but only text can be read; remove the part")
        part = part.get("text")
    return "" if part is None else as_text(part, "part", place, True)


def _part_type(part: Any) -> str:
    return str(part.get("content_type")) if isinstance(part, dict) else "text"


def _thoughts(content: Record, place: Place) -> str:
    thoughts = content.get("thoughts")
    rows = [row for row in thoughts if isinstance(row, dict)] if isinstance(thoughts, list) else []
    texts = [row.get("content") or row.get("summary") for row in rows]
    return as_text("\n\n".join(text for text in texts if isinstance(text, str)), "thoughts", place, True)


def _object(row: Record, name: str) -> Record:
    value = row.get(name)
    return value if isinstance(value, dict) else {}
