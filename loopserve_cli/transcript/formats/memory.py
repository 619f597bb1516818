"""Benchmarks of long memory: sessions of past talk, then questions about them."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.benchmarks import answer_of
from loopserve_cli.transcript.formats.beside import dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record
from loopserve_cli.transcript.formats.rows import joined, message_of
from loopserve_cli.transcript.ours import NEEDS
from loopserve_cli.transcript.place import Place, as_list, as_object, as_text, kind, need

SESSION = re.compile(r"session_(\d+)")
TURN_NEEDS = "every turn needs speaker and text"
Session = tuple[str, list[Any]]


def longmemeval(record: Record, place: Place) -> Found:
    """LongMemEval (arXiv 2410.10813): the sessions laid end to end, then the question and its answer.

    Where one session ends and the next begins with the same side, the two messages become one.
    """
    needs = "a record needs haystack_sessions and question"
    said: list[Message] = []
    lost = {name for name in ("haystack_dates", "question_date") if record.get(name)}
    sessions = as_list(need(record, "haystack_sessions", place, needs), "haystack_sessions", place)
    for number, session in enumerate(sessions, 1):
        if not isinstance(session, list):
            raise place.error(f"session {number} must be a list of messages, not {kind(session)}")
        for row in session:
            where = place.within(f"session {number}")
            row = as_object(row, where, NEEDS)
            if _text(row, "content").strip() or not isinstance(row.get("content"), str):  # some published are blank
                said.append(message_of(row, where))
        lost |= lost_in(session)
    question = as_text(need(record, "question", place, needs), "question", place)
    said = [*said, Message("user", question), *answer_of(record, "answer", place)]
    return dialogue(record, joined(said, place), place, ("question_id",), lost)


def locomo(record: Record, place: Place) -> Found:
    """LoCoMo (arXiv 2402.17753): the talk of two people as text in the first message, then questions and answers.

    Each session begins with its date. It stands under `conversation`, or beside the questions (`qa`), or as one
    list of turns with times (and `question`), as memory systems flatten it. Questions made to have no answer are
    lost where others have one.
    """
    talk = "\n\n".join(_session_text(session, place) for session in _sessions(record, place))
    asked = record.get("qa", record.get("question")) or []
    if not isinstance(asked, list):
        raise place.error(f"qa must be a list of questions, not {kind(asked)}")
    exchanges = []
    for number, value in enumerate(asked, 1):
        where = place.within(f"question {number}")
        row = as_object(value, where, "every question needs question and answer")
        question = as_text(need(row, "question", where, "every question needs it"), "question", where)
        exchanges.append([Message("user", question), *answer_of(row, "answer", where)])
    answered = [exchange for exchange in exchanges if len(exchange) > 1]
    lost = {"questions without an answer"} if 0 < len(answered) < len(exchanges) else set()
    said = [message for exchange in answered or exchanges for message in exchange]
    first = f"{talk}\n\n{said[0].content}" if said else talk
    return dialogue(record, [Message("user", first), *said[1:]], place, ("sample_id", "id"), lost)


def is_locomo(record: Record) -> bool:
    """Whether the record holds sessions by number, or a list of what speakers said."""
    talk = record.get("conversation")
    if isinstance(talk, list):
        return bool(talk) and isinstance(talk[0], dict) and "speaker" in talk[0]
    return _has_sessions(talk if isinstance(talk, dict) else record)


def _has_sessions(record: Record) -> bool:
    return any(SESSION.fullmatch(name) for name in record)


def _sessions(record: Record, place: Place) -> list[Session]:
    """Each session's date and its turns, in order."""
    talk = record.get("conversation", record)
    if isinstance(talk, list):
        rows = enumerate(as_list(talk, "conversation", place), 1)
        turns = [as_object(turn, place.within(f"turn {number}"), TURN_NEEDS) for number, turn in rows]
        return [(time, list(group)) for time, group in groupby(turns, lambda turn: _text(turn, "timestamp"))]
    talk = as_object(talk, place.within("conversation"), "it needs session_1 and so on")
    numbers = sorted(int(match[1]) for match in map(SESSION.fullmatch, talk) if match and len(match[1]) < 9)
    if not numbers:
        raise place.error("session_1 is missing; a conversation needs its sessions")
    return [_session(talk, number, place) for number in numbers]


def _session(talk: Record, number: int, place: Place) -> Session:
    value = talk.get(f"session_{number}")
    date = _text(talk, f"session_{number}_date_time")
    if isinstance(value, dict):
        date = _text(value, "date_time") or date
        value = value.get("messages", value.get("turns"))
    if not isinstance(value, list):
        raise place.error(f"session_{number} must be a list of turns, not {kind(value)}")
    return date, value


def _session_text(session: Session, place: Place) -> str:
    """A session as it is read: its date, and a line for each turn; a picture's caption stands for the picture."""
    date, turns = session
    lines = [date] if date else []
    for number, value in enumerate(turns, 1):
        where = place.within(f"{date}: turn {number}" if date else f"turn {number}")
        turn = as_object(value, where, TURN_NEEDS)
        speaker = as_text(need(turn, "speaker", where, TURN_NEEDS), "speaker", where)
        text = as_text(need(turn, "text", where, TURN_NEEDS), "text", where, True)
        caption = _text(turn, "blip_caption")
        lines.append(f"{speaker}: {text}" + (f" [shares a picture: {caption}]" if caption else ""))
    return as_text("\n".join(lines), "conversation", place)


def _text(record: Record, name: str) -> str:
    """A field's text, or nothing where it is none."""
    value = record.get(name)
    return value if isinstance(value, str) else ""
