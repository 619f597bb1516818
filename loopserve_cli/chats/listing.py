"""The dialogues of the state folder: what the head of each file says, without reading all of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from loopserve_cli.errors import LoopserveError, TranscriptError
from loopserve_cli.folders import transcripts_folder
from loopserve_cli.transcript.lock import in_use
from loopserve_cli.transcript.ours import Header, is_header, parse_transcript
from loopserve_cli.transcript.place import Place
from loopserve_cli.transcript.source import parse

ENDING = ".jsonl"
# Bytes: a header with many tools, and of a message as much as a line on a screen shows.
LONGEST_HEADER = 1 << 24
MESSAGE_HEAD = 1 << 12
BLOCK = 1 << 20
# Longer than what may be cut at a block's end.
OVERLAP = 64
USERS = re.compile(rb'\n\s{0,16}\{\s{0,16}"role"\s{0,4}:\s{0,4}"user"')
CONTENT = re.compile(r'"content"\s*:\s*"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)')


@dataclass(frozen=True, slots=True)
class Saved:
    """One dialogue. `updated` is local time; `first` is how its first message begins, None where there is none."""

    path: Path
    updated: datetime
    header: Header
    turns: int
    first: str | None
    in_use: bool

    @property
    def name(self) -> str:
        """What --resume finds it by."""
        return self.path.stem

    @property
    def opening(self) -> str:
        """How it begins, in one line."""
        return "(nothing said)" if self.first is None else " ".join(self.first[:400].split())


def saved_files(folder: Path | None = None) -> list[Path]:
    """The files of the state folder, the one that was written last first."""
    folder = folder or transcripts_folder()
    stamped = []
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry.path) for entry in entries if entry.name.endswith(ENDING)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LoopserveError(f"{folder}: cannot be read: {error.strerror}; change its mode") from None
    for path in paths:
        with contextlib.suppress(OSError):  # removed meanwhile, or a link that leads nowhere
            stamped.append((path.stat().st_mtime_ns, path.name, path))
    return [path for *_, path in sorted(stamped, reverse=True)]


def look(path: Path) -> Saved:
    """What a file's head says, and how many turns the rest holds; raises TranscriptError for no dialogue of ours."""
    place = Place(str(path))
    try:
        if not path.is_file():
            raise place.error("is no regular file; move it elsewhere")
        with path.open("rb") as lines:
            header = _header(lines, place)
            first = next(_heads(lines), None)
            lines.seek(0)
            turns = _count(lines)
        updated = datetime.fromtimestamp(path.stat().st_mtime)
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}; change its mode") from None
    return Saved(path, updated, header, turns, first, in_use(path))


def newest() -> Saved:
    """The dialogue that was gone on with last; raises TranscriptError for a damaged one, and where there is none."""
    for path in saved_files():
        found = look(path)
        if found.turns:
            return found
    raise TranscriptError(f"there is no saved dialogue in {transcripts_folder()} yet; `loopserve chat` begins one")


def named(name: str) -> Path | None:
    """The file of the state folder that goes by a bare name, with its ending or without."""
    places = [transcripts_folder() / (name + end) for end in ("", ENDING)] if Path(name).name == name else []
    return next((path for path in places if os.path.isfile(path)), None)


def _header(lines: IO[bytes], place: Place) -> Header:
    line = lines.readline(LONGEST_HEADER)
    if not line:
        raise place.error("is empty; there is no dialogue in it")
    first = Place(place.file, line=1)
    value = parse(first, line)
    if not is_header(value):
        raise place.error("is not a loopserve transcript; move it elsewhere")
    return parse_transcript([(first, value)]).header


def _heads(lines: IO[bytes]) -> Iterator[str]:
    """How each of the user's messages begins."""
    while line := lines.readline(MESSAGE_HEAD):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = lines.readline(BLOCK)
        if begins_turn(line) and (begun := CONTENT.search(line.decode(errors="ignore"))) is not None:
            yield json.loads(f'"{begun[1]}"', strict=False).encode(errors="replace").decode()


def begins_turn(line: bytes) -> bool:
    """Whether a line holds a message of the user's."""
    return USERS.match(b"\n" + line[:OVERLAP]) is not None


def _count(lines: IO[bytes]) -> int:
    """How many messages of the user a file holds; one of our files, for it goes by how a line begins."""
    count, tail = 0, b""
    while block := lines.read(BLOCK):
        data = tail + block
        count += len(USERS.findall(data)) - len(USERS.findall(tail))
        tail = data[-OVERLAP:]
    return count
