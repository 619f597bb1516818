"""Our own format: a header line, then one line per message; several dialogues may follow each other in a file.

    {"loopserve": 1, "id": "morning", "model": "demo", "profile": "full", "created": "2026-01-31T09:00:00+00:00"}
    {"role": "user", "content": "Hello."}
    {"role": "assistant", "content": "Hel", "reasoning": "A greeting.", "partial": true, "stats": {...}}

A header with `"questions_only": true` begins a dialogue whose answers are unknown. A user's or a system
message is never blank; an answer may be, since a model may end at once. Fields we do not know are kept
in the header and passed over in messages.
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
from loopserve_cli.transcript.place import Place, as_object, as_text, kind, need, shown

VERSION = 1
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
NEEDS = "every message needs role and content"


def now() -> str:
    """The time as the header gives it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Header:
    """A transcript's first line. `extra` holds further fields, JSON types only."""

    model: str | None = None
    profile: str | None = None
    created: str | None = field(default_factory=now)
    id: str | None = None
    questions_only: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


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
    return _line({**row, **header.extra})


def message_line(message: Message) -> bytes:
    """The message as a line of the file."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        row["reasoning"] = message.reasoning
    if message.partial:
        row["partial"] = True
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
    check_next(previous, message.role, place, questions_only=questions_only)


def is_header(value: Any) -> bool:
    """Whether a line's value begins a dialogue in our format."""
    return isinstance(value, dict) and "loopserve" in value


def parse_transcripts(rows: Iterable[tuple[Place, Any]]) -> list[Transcript]:
    """The dialogues of a file in our format from its lines' values; the first must be a header."""
    transcripts: list[Transcript] = []
    for place, value in rows:
        if is_header(value):
            transcripts.append(Transcript(_header(value, place), [], place))
            continue
        current = transcripts[-1]
        message = _message(as_object(value, place, NEEDS), place)
        previous = current.messages[-1].role if current.messages else None
        check_next(previous, message.role, place, questions_only=current.header.questions_only)
        current.messages.append(message)
    return transcripts


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _header(row: dict[str, Any], place: Place) -> Header:
    version = row["loopserve"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise place.error(f"loopserve must be the format's version, {VERSION}, not {kind(version)}")
    if version != VERSION:
        raise place.error(f"loopserve is {version}, but this program reads version {VERSION}; update loopserve")
    known: dict[str, str | None] = {}
    for name in ("model", "profile", "created", "id"):
        value = row.get(name)
        known[name] = value if value is None else as_text(value, name, place)
    questions_only = row.get("questions_only", False)
    if not isinstance(questions_only, bool):
        raise place.error(f"questions_only must be true or false, not {kind(questions_only)}")
    extra = {k: v for k, v in row.items() if k not in known and k not in ("loopserve", "questions_only")}
    return Header(**known, questions_only=questions_only, extra=extra)


def _message(row: dict[str, Any], place: Place) -> Message:
    name = as_text(need(row, "role", place, NEEDS), "role", place)
    if name not in ROLES:
        raise place.error(f"role {shown(name)} is unknown; use {', '.join(ROLES)}")
    role = ROLES[name]
    content = as_text(need(row, "content", place, NEEDS), "content", place, may_be_empty=role == "assistant")
    reasoning = row.get("reasoning")
    if reasoning is not None:
        as_text(reasoning, "reasoning", place, may_be_empty=True)
    partial = row.get("partial", False)
    if not isinstance(partial, bool):
        raise place.error(f"partial must be true or false, not {kind(partial)}")
    stats = row.get("stats")
    if stats is not None and not isinstance(stats, dict):
        raise place.error(f"stats must be an object, not {kind(stats)}")
    return Message(role, content, partial, None if stats is None else _record(stats, place), reasoning)


def _record(stats: dict[str, Any], place: Place) -> TurnRecord:
    try:
        return TurnRecord.from_json(stats)
    except TypeError as error:
        name = str(error).split()[0]
        raise place.error(f"stats.{error}, not {kind(stats[name])}") from None
