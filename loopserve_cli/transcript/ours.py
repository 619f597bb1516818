"""Our own format: a header line, then one line per message; several dialogues may follow each other in a file.

    {"loopserve": 1, "id": "morning", "model": "demo", "profile": "full", "created": "2026-01-31T09:00:00+00:00"}
    {"role": "user", "content": "Hello."}
    {"role": "assistant", "content": "Hel", "partial": true, "reasoning": "They greet me.", "stats": {...}}
    {"role": "user", "content": "Long ago.", "forgotten": true}

A header with `"questions_only": true` begins a dialogue whose answers are unknown; `tools` (a list) and `date`
(when the dialogue began) stand there where it has them. A user's or a system message is never blank; an answer
may be, since a model may end at once. Fields we do not know are kept in the header and passed over in messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from loopserve_cli.messages import Message, Role
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript.order import check_next
from loopserve_cli.transcript.place import Place, RecordError, as_id, as_object, as_text, kind, need, shown
from loopserve_cli.transcript.tools import Tools, as_tools

VERSION = 1
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
NEEDS = "every message needs role and content"


def now() -> str:
    """The time as the header gives it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Header:
    """A transcript's first line. `extra` holds further fields, JSON types only.

    `date` is the local time at which the dialogue began, ISO 8601: what a template writes where it writes the date.
    `tools` are the functions that the model may call.
    """

    model: str | None = None
    profile: str | None = None
    created: str | None = field(default_factory=now)
    id: str | None = None
    questions_only: bool = False
    date: str | None = None
    tools: Tools = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def began(self) -> str | None:
        """When the dialogue began, as far as the header says: its date, else when the file was made."""
        return self.date or (self.created if self.created is not None and is_date(self.created) else None)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One dialogue of a file in our format; `place` is its header's line."""

    header: Header
    messages: list[Message]
    place: Place


def header_line(header: Header) -> bytes:
    """The header as a line of the file."""
    row: dict[str, Any] = {"loopserve": VERSION}
    if header.id is not None:
        row["id"] = header.id
    row |= {"model": header.model, "profile": header.profile, "created": header.created}
    if header.questions_only:
        row["questions_only"] = True
    if header.date is not None:
        row["date"] = header.date
    if header.tools:
        row["tools"] = list(header.tools)
    return _line({**row, **header.extra})


def message_line(message: Message) -> bytes:
    """The message as a line of the file."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.partial:
        row["partial"] = True
    if message.forgotten:
        row["forgotten"] = True
    if message.reasoning is not None:
        row["reasoning"] = message.reasoning
    if message.record is not None:
        row["stats"] = message.record.to_json()
    return _line(row)


def checked_lines(header: Header, messages: Sequence[Message], file: str) -> bytes:
    """A dialogue as it stands in `file`; raises TranscriptError where the reader would."""
    check_messages(messages, file, header.questions_only)
    return header_line(header) + b"".join(map(message_line, messages))


def check_messages(messages: Iterable[Message], file: str, questions_only: bool = False) -> None:
    """Raise TranscriptError where the reader would, were the messages written to `file`."""
    previous: Role | None = None
    for number, message in enumerate(messages, 1):
        check_message(message, previous, Place(file, part=f"message {number}"), questions_only)
        previous = message.role


def check_message(message: Message, previous: Role | None, place: Place, questions_only: bool) -> None:
    """Raise TranscriptError unless the message may be written after one of the role `previous`."""
    as_text(message.content, "content", place, may_be_empty=message.role == "assistant")
    if message.reasoning is not None:
        as_text(message.reasoning, "reasoning", place, may_be_empty=True)
    check_next(previous, message.role, place, questions_only=questions_only)


def is_header(value: Any) -> bool:
    """Whether a line's value begins a dialogue in our format."""
    return isinstance(value, dict) and "loopserve" in value


def split_dialogues(cells: Iterable[tuple[Place, Any]]) -> list[list[tuple[Place, Any]]]:
    """The lines of each dialogue, its header first."""
    dialogues: list[list[tuple[Place, Any]]] = []
    for cell in cells:
        if is_header(cell[1]):
            dialogues.append([])
        dialogues[-1].append(cell)
    return dialogues


def parse_transcript(cells: Sequence[tuple[Place, Any]]) -> Transcript:
    """One dialogue from its lines' values, its header first; a value may be the error that reading it gave."""
    (place, first), *rest = cells
    header = _header(first, place)
    messages: list[Message] = []
    for where, value in rest:
        if isinstance(value, RecordError):
            raise value
        message = _message(as_object(value, where, NEEDS), where)
        previous = messages[-1].role if messages else None
        check_next(previous, message.role, where, questions_only=header.questions_only)
        messages.append(message)
    return Transcript(header, messages, place)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _header(row: dict[str, Any], place: Place) -> Header:
    version = row["loopserve"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise place.error(f"loopserve must be the format's version, {VERSION}, not {kind(version)}")
    if version != VERSION:
        raise place.error(f"loopserve is {version}, but this program reads version {VERSION}; update loopserve")
    known: dict[str, str | None] = {}
    for name in ("model", "profile", "created", "date"):
        value = row.get(name)
        known[name] = value if value is None else as_text(value, name, place)
    if known["date"] is not None and not is_date(known["date"]):
        raise place.error(f"date is {shown(known['date'])}; write it as 2026-01-31 or remove it")
    questions_only = row.get("questions_only", False)
    if not isinstance(questions_only, bool):
        raise place.error(f"questions_only must be true or false, not {kind(questions_only)}")
    tools = as_tools(row.get("tools"), "tools", place)
    _check_writable(row, place)
    extra = {k: v for k, v in row.items() if k not in known and k not in ("loopserve", "id", "questions_only", "tools")}
    return Header(**known, id=as_id(row.get("id")), questions_only=questions_only, tools=tools, extra=extra)


def _check_writable(row: dict[str, Any], place: Place) -> None:
    """Raise unless all of a header can be written again; an id that cannot is no id."""
    for name, value in row.items():
        try:
            json.dumps({name: value if name != "id" else None}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise place.error(f"{shown(name)} holds half a character; remove it or write the whole pair") from None
        except RecursionError:
            raise place.error(f"{shown(name)} is nested too deeply; remove it") from None


def is_date(text: str) -> bool:
    """Whether a text is a date, perhaps with a time, as ISO 8601 writes it."""
    try:
        date = datetime.fromisoformat(text)
        if date.tzinfo is not None:
            date.astimezone()
    except (ValueError, OverflowError):
        return False
    return True


def _message(row: dict[str, Any], place: Place) -> Message:
    name = as_text(need(row, "role", place, NEEDS), "role", place)
    if name not in ROLES:
        raise place.error(f"role {shown(name)} is unknown; use {', '.join(ROLES)}")
    role = ROLES[name]
    content = as_text(need(row, "content", place, NEEDS), "content", place, may_be_empty=role == "assistant")
    partial, forgotten = _flag(row, "partial", place), _flag(row, "forgotten", place)
    stats = row.get("stats")
    if stats is not None and not isinstance(stats, dict):
        raise place.error(f"stats must be an object, not {kind(stats)}")
    reasoning = row.get("reasoning") if role == "assistant" else None
    if reasoning is not None:
        as_text(reasoning, "reasoning", place, may_be_empty=True)
    return Message(role, content, partial, None if stats is None else _record(stats, place), reasoning, forgotten)


def _flag(row: dict[str, Any], name: str, place: Place) -> bool:
    """Whether a mark stands in the row; raises for a value that is no mark."""
    value = row.get(name, False)
    if not isinstance(value, bool):
        raise place.error(f"{name} must be true or false, not {kind(value)}")
    return value


def _record(stats: dict[str, Any], place: Place) -> TurnRecord:
    try:
        return TurnRecord.from_json(stats)
    except TypeError as error:
        name, _, words = str(error).partition(" must be ")
        raise place.error(f"stats.{error}, not {wrong(stats[name], words)}") from None


def wrong(value: Any, words: str) -> str:
    """What a value is that is not as `words` say; of the right kind, it is wrong by what it holds."""
    if not words.startswith(kind(value)):
        return kind(value)
    return "one with half a character" if isinstance(value, str) else f"{kind(value)} with other things in it"
