"""What stands beside a record's messages: it reaches the dialogue, or is named as lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.found import Found, Record
from loopserve_cli.transcript.formats.rows import REASONING, content_of
from loopserve_cli.transcript.place import Place, as_id
from loopserve_cli.transcript.tools import Tools, as_tools

SYSTEM = ("system", "system_prompt", "system_message", "system_instruction", "systemPrompt", "systemMessage")
TOOLS = "messages of tools"
MEDIA = ("images", "image", "videos", "video", "audios", "audio", "documents")
# A record's fields that would change the prompt, if a model of text could be given them.
RECORD_FIELDS = (*MEDIA, "files", "attachments", "chat_template_kwargs")
# What may have been a part of the prompt under a name that others use otherwise: lost where no message has its text.
INSTRUCTIONS = (
    "instruction",
    "instructions",
    "system_instructions",
    "prompt",
    "context",
    "preamble",
    "persona",
    "available_tools",
    "tool_list",
)
# The same of a message: some templates write its name.
MESSAGE_FIELDS = (*MEDIA, "files", "attachments", "name", "tool_calls", "tool_call_id")
ANY_OF_THEM = frozenset((*MESSAGE_FIELDS, *REASONING))


def dialogue(
    record: Record, said: list[Message], place: Place, ids: Iterable[str] = ("id",), lost: Iterable[str] = ()
) -> Found:
    """A record's dialogue: its messages, and what stands beside them.

    A system prompt beside the messages becomes the first of them, unless one stands there already: then it is
    lost, as LLaMA-Factory does. `ids` are the fields that may name the record, `lost` what the format itself loses.
    """
    missing = set(lost)
    field, system = _system(record, place)
    if system is not None:
        if said[0].role != "system":
            said = [Message("system", system), *said]
        elif said[0].content.strip() != system.strip():
            missing.add(field)
    missing |= lost_beside(record, said) - {field}
    name = next((found for found in (as_id(record.get(field)) for field in ids) if found is not None), None)
    return Found(name, said, place, tools=_tools(record, place), lost=frozenset(missing))


def lost_beside(record: Mapping[str, Any], said: Iterable[Message]) -> set[str]:
    """The fields beside a record's messages that reach no prompt."""
    text = "\n".join(message.content for message in said)
    lost = {name for name in RECORD_FIELDS if record.get(name)}
    return lost | {name for name in (*SYSTEM, *INSTRUCTIONS) if not _stands_in(record.get(name), text)}


def lost_in(rows: Iterable[Any]) -> set[str]:
    """The fields of messages that reach no prompt."""
    lost = set()
    for row in rows:
        if isinstance(row, dict) and not ANY_OF_THEM.isdisjoint(row):  # most of a million rows have none
            lost |= {name for name in MESSAGE_FIELDS if row.get(name)}
            thoughts = [name for name in REASONING if row.get(name)]
            if not any(isinstance(row[name], str) for name in thoughts):
                lost |= set(thoughts)
    return lost


def _stands_in(value: Any, text: str) -> bool:
    """Whether a text, or every one in a list, stands in `text`; numbers and what is empty are no text."""
    if isinstance(value, list):
        return all(_stands_in(item, text) for item in value)
    return value.strip() in text if isinstance(value, str) else not value or isinstance(value, int | float)


def _system(record: Record, place: Place) -> tuple[str, str | None]:
    """The field that holds a system prompt, and its text; a blank one is none."""
    for field in SYSTEM:
        value = record.get(field)
        if value and not (isinstance(value, str) and not value.strip()):
            return field, content_of(value, field, place)[0]
    return "", None


def _tools(record: Record, place: Place) -> Tools:
    return as_tools(record.get("tools"), "tools", place) + as_tools(record.get("functions"), "functions", place)
