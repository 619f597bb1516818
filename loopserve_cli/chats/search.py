"""Where words stand in a saved dialogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.chats.listing import begins_turn
from loopserve_cli.files import TRANSCRIPT_LIMIT, Refused, read_file
from loopserve_cli.transcript.ours import ROLES
from loopserve_cli.transcript.place import Place
from loopserve_cli.transcript.source import parse

# Characters that are shown before the word and behind its beginning.
BEFORE, BEHIND = 16, 184


@dataclass(frozen=True, slots=True)
class Match:
    """The first message that holds a word, and the text around it, in one line. `turn` is 0 before the first one."""

    turn: int
    role: str
    text: str


def search(path: Path, words: Sequence[str]) -> list[Match]:
    """Where each word stands first, in order; empty unless the dialogue's messages hold all of them, in any case.

    Raises TranscriptError for a file that cannot be read, or has a damaged line before its last.
    """
    place = Place(str(path))
    try:
        raw = read_file(path, TRANSCRIPT_LIMIT)
    except Refused as refusal:
        raise place.error(str(refusal)) from None
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}; change its mode") from None
    wanted = {word.lower() for word in words}
    if not all(_may_hold(raw, word) for word in wanted):
        return []
    found = []
    for turn, role, content in _messages(raw, wanted, place):
        folded = content.lower()
        here = {word for word in wanted if word in folded}
        if here:
            found.append(Match(turn, role, _around(content, min(folded.index(word) for word in here))))
            wanted -= here
        if not wanted:
            return found
    return []


def _may_hold(raw: bytes, word: str) -> bool:
    """Whether the word stands there at all: most lines are left here, without parsing what turns measured."""
    text = raw.decode(errors="replace").lower()
    return json.dumps(word, ensure_ascii=False)[1:-1] in text or "\\u" in text


def _messages(raw: bytes, words: set[str], place: Place) -> Iterator[tuple[int, str, str]]:
    """The messages that may hold one of the words: turn, role and content; the last line may be cut off."""
    turn = 0
    lines = raw.split(b"\n")
    for number, line in enumerate(lines[1:], 2):
        turn += begins_turn(line)
        if not any(_may_hold(line, word) for word in words) or (number == len(lines) and not line.endswith(b"}")):
            continue
        row = parse(Place(place.file, line=number), line)
        if isinstance(row, dict) and row.get("role") in ROLES and isinstance(row.get("content"), str):
            yield turn, row["role"], row["content"]


def _around(content: str, index: int) -> str:
    """The text around a place in it, in one line, with dots where it goes on."""
    first, last = max(0, index - BEFORE), index + BEHIND
    cut = " ".join(content[first:last].split())
    return ("…" if first else "") + cut + ("…" if last < len(content) else "")
