"""Reads dialogue files: finds out which format one is, and names file, line and field when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Dialogue
from loopserve_cli.transcript.formats import FORMATS, Format, Found, is_message, messages
from loopserve_cli.transcript.ours import Transcript, is_header, parse_transcripts
from loopserve_cli.transcript.place import Place, as_object, kind, shown

SUPPORTED = "loopserve, " + ", ".join(f.name for f in FORMATS) + ", vLLM multi-turn"
BOM = b"\xef\xbb\xbf"
Row = tuple[Place, bytes]
Warn = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Where a warning goes unless the caller shows it otherwise."""
    print(f"warning: {line}", file=sys.stderr)


def read_dialogues(path: Path, warn: Warn = to_stderr) -> list[Dialogue]:
    """All dialogues of a file, in order; raises TranscriptError, in one line, for anything wrong in it.

    An id that the file lacks is made from the file's name; one that it has twice gets a number, so that
    ids are unique. When a process was killed as it wrote the last line of our own format, the lines
    before it are read and `warn` is told.
    """
    source = SourceFile.read(path)
    if source.is_ours():
        transcripts = read_transcripts(source, warn)
        found = [Found(t.header.id, t.messages, t.place, date=t.header.date) for t in transcripts]
        for one in found:
            if not any(m.role == "user" for m in one.messages):
                raise one.place.error("no message is the user's; a dialogue needs at least one")
    else:
        found = list(_foreign(source))
    return _named(found, path.stem)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A dialogue file's bytes and its lines that are not blank; there is at least one."""

    place: Place
    raw: bytes
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> SourceFile:
        """The file; raises TranscriptError when it cannot be opened, is empty or is no text."""
        place = Place(str(path))
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise place.error("no such file; check the path") from None
        except IsADirectoryError:
            raise place.error("is a folder; give one of its files") from None
        except PermissionError:
            raise place.error("no permission to read it; change its mode or copy it") from None
        except OSError as error:
            raise place.error(f"cannot be read: {error.strerror}") from None
        if raw.startswith(b"PAR1"):
            raise place.error("is a Parquet file; export it as JSON lines first (datasets: Dataset.to_json)")
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise place.error("is UTF-16 text; save it as UTF-8")
        if b"\0" in raw:
            raise place.error("is a binary file; give a JSON or JSONL text file")
        raw = raw.removeprefix(BOM)
        lines = enumerate(raw.split(b"\n"), 1)
        rows = [(Place(str(path), line=number), line) for number, line in lines if line.strip()]
        if not rows:
            raise place.error("is empty; there is no dialogue in it")
        return cls(place, raw, rows)

    @property
    def ends_whole(self) -> bool:
        """Whether the last line was written to its end."""
        return self.raw.endswith(b"\n")

    def is_ours(self) -> bool:
        """Whether the first line is a header of our format."""
        return is_header(_value(self.rows[0]))


def read_transcripts(source: SourceFile, warn: Warn) -> list[Transcript]:
    """The dialogues of a file in our format, finished lines only."""
    return parse_transcripts(_finished_rows(source, warn))


def _finished_rows(source: SourceFile, warn: Warn) -> Iterator[tuple[Place, Any]]:
    """Each line's value; a broken last line without its line end was cut off, and is left out."""
    for place, line in source.rows:
        try:
            value = _parse(place, line)
        except TranscriptError:
            if source.ends_whole or place != source.rows[-1][0]:
                raise
            warn(f"{place}: the last line is cut off (a process ended as it wrote it); the lines before it are kept")
            return
        yield place, value


def _foreign(source: SourceFile) -> Iterator[Found]:
    """The dialogues of a file in another format than ours."""
    values = _records(source)
    place, first = values[0]
    form = _sniff(first)
    if form is None and is_message(first):
        if place.line is not None:
            raise place.error('is a message without a header; put {"loopserve": 1} in a line before it')
        yield Found(None, messages([value for _, value in values], source.place, items=True), source.place)
        return
    if form is None:
        raise place.error(f"unknown format ({_keys(first)}); supported are {SUPPORTED}")
    needs = f"every record of this file ({form.name}) is an object with {form.keys[0]}"
    found = [one for place, value in values for one in form.read(as_object(value, place, needs), place)]
    yield from _sessions(found) if form.name == "aiperf" else found


def _records(source: SourceFile) -> list[tuple[Place, Any]]:
    """The records of a JSONL file, or of the one JSON value that the file is."""
    first, *rest = source.rows
    if rest and _value(first) is not None:
        return [(place, _parse(place, line)) for place, line in source.rows]
    try:
        whole = _parse(source.place, source.raw)
    except TranscriptError:
        if rest and first[1].lstrip().startswith(b"{") and _value(rest[0]) is not None:
            _parse(*first)  # JSONL with a broken first line: that line is the one to name
        raise
    if not isinstance(whole, list):
        return [(source.place if rest else first[0], whole)]
    if not whole:
        raise source.place.error("is an empty list; there is no dialogue in it")
    return [(Place(source.place.file, item=number), value) for number, value in enumerate(whole, 1)]


def _value(row: Row) -> Any:
    """A line's value, or None where it is no JSON by itself."""
    try:
        return _parse(*row)
    except TranscriptError:
        return None


def _parse(place: Place, data: bytes) -> Any:
    """The JSON value of a line, or of a whole file when `place` has no line; an error names the line."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        where = Place(place.file, line=place.line or data.count(b"\n", 0, error.start) + 1)
        problem = f"not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        where = Place(place.file, line=place.line or error.lineno)
        problem = f"not valid JSON at column {error.colno} ({error.msg}); mend the line or remove it"
    except RecursionError:
        where, problem = place, "nested too deeply for a dialogue; check that this is the right file"
    except ValueError:  # json gives up on a number of thousands of digits
        where, problem = place, "holds a number that is too long; check that this is the right file"
    raise where.error(problem)


def _sniff(first: Any) -> Format | None:
    """The format whose fields the first record has, if any."""
    if not isinstance(first, dict):
        return None
    return next((form for form in FORMATS if any(key in first for key in form.keys)), None)


def _keys(first: Any) -> str:
    """What the first record is, for those who expected something else."""
    if not isinstance(first, dict):
        return kind(first)
    return f"an object with {', '.join(shown(key) for key in list(first)[:5])}" if first else "an empty object"


def _sessions(found: Iterable[Found]) -> list[Found]:
    """Records of one session joined into one dialogue, where its first stands."""
    sessions: dict[str | int, Found] = {}
    for number, one in enumerate(found):
        key = number if one.id is None else one.id
        if key in sessions:
            sessions[key].messages.extend(one.messages)
        else:
            sessions[key] = one
    return list(sessions.values())


def _named(found: list[Found], stem: str) -> list[Dialogue]:
    """The dialogues with unique ids."""
    dialogues = []
    taken: set[str] = set()
    for number, one in enumerate(found, 1):
        name = one.id or (stem if len(found) == 1 else f"{stem}-{number}")
        name = f"{name}/{one.label}" if one.label else name
        copies = (f"{name}#{copy}" for copy in count(2))
        unique = next(n for n in chain([name], copies) if n not in taken)
        taken.add(unique)
        dialogues.append(Dialogue(unique, tuple(one.messages), str(one.place), date=one.date))
    return dialogues
