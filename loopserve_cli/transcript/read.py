"""Reads dialogue files: finds out which format one is, and names file, line and field when something is wrong."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loopserve_cli.messages import Dialogue
from loopserve_cli.printable import printable_line
from loopserve_cli.transcript.formats import NAMES, Format, format_of
from loopserve_cli.transcript.formats.beside import lost_beside, lost_in
from loopserve_cli.transcript.formats.found import Found
from loopserve_cli.transcript.formats.rows import check_asked, is_message, messages
from loopserve_cli.transcript.ours import Transcript, parse_transcript, split_dialogues
from loopserve_cli.transcript.place import Place, RecordError, as_object, kind, shown
from loopserve_cli.transcript.sieve import Sieve, lost_line
from loopserve_cli.transcript.source import Cell, SourceFile

SUPPORTED = ", ".join(NAMES)
Warn = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Where a warning goes unless the caller shows it otherwise."""
    print(f"warning: {printable_line(line)}", file=sys.stderr)


def read_dialogues(path: Path | None, warn: Warn = to_stderr, strict: bool = False) -> list[Dialogue]:
    """All dialogues of a file, or of stdin where `path` is None, in order; what gzip packed is unpacked.

    A bad record is left out, and `warn` is told in one line how many of how many were, which and why; with
    `strict` it raises TranscriptError, as a file without a good record always does. `warn` is also told which
    fields reach no prompt, and when a process was killed as it wrote the last line of our own format: the lines
    before it are read. An id that the file lacks is made from the file's name; one that it has twice gets a
    number, so that ids are unique.
    """
    source = SourceFile.read_packed(path)
    sieve = Sieve(strict)
    found, records = _ours(source, sieve, warn) if source.is_ours() else _foreign(source, sieve)
    if not found:
        raise sieve.all_bad(records)
    file = source.place.file
    for line in (sieve.line(file, records), lost_line(file, [one.lost for one in found])):
        if line is not None:
            warn(line)
    return _named(found, source.stem)


def read_transcripts(source: SourceFile, warn: Warn) -> list[Transcript]:
    """The dialogues of a file in our format, finished lines only; raises TranscriptError for anything wrong in it."""
    cells, cut = _finished(source)
    dialogues = split_dialogues(cells)
    transcripts = [parse_transcript(lines) for lines in dialogues]
    lost = lost_line(source.place.file, list(map(_lost, transcripts, dialogues)))
    for line in (cut, lost):
        if line is not None:
            warn(line)
    return transcripts


def _lost(one: Transcript, lines: Sequence[Cell]) -> frozenset[str]:
    """What stands in the lines of our own format and reaches no prompt."""
    return frozenset(lost_beside(one.header.extra, one.messages) | lost_in(value for _, value in lines[1:]))


def _ours(source: SourceFile, sieve: Sieve, warn: Warn) -> tuple[list[Found], int]:
    """The dialogues of a file in our format, and how many it holds with the bad ones."""
    cells, cut = _finished(source)
    dialogues = split_dialogues(cells)
    found = []
    for lines in dialogues:
        place = lines[0][0]
        with sieve.trying([place]):
            one = parse_transcript(lines)
            check_asked(one.messages, place)
            header, lost = one.header, _lost(one, lines)
            found.append(Found(header.id, one.messages, place, tools=header.tools, date=header.date, lost=lost))
    if cut is not None:
        warn(cut)
    return found, len(dialogues)


def _finished(source: SourceFile) -> tuple[list[Cell], str | None]:
    """Each line's value; a broken last line without its line end was cut off: it is left out, and the text says so."""
    cells = source.lines()
    place, last = cells[-1]
    if not isinstance(last, RecordError) or source.ends_whole:
        return cells, None
    told = f"{place}: the last line is cut off (a process ended as it wrote it); the lines before it are kept"
    return cells[:-1], told


def _foreign(source: SourceFile, sieve: Sieve) -> tuple[list[Found], int]:
    """The dialogues of a file in another format than ours, and how many records it holds with the bad ones."""
    cells = _by_name([(place, _record(value)) for place, value in source.records()])
    place, first = cells[0]
    form = _told(cells[:1] if sieve.strict else cells)
    if form is None and is_message(first):
        if place.line is not None:
            raise place.error('is a message without a header; put {"loopserve": 1} in a line before it')
        said = messages([value for _, value in cells], source.place, items=True)
        return [Found(None, said, source.place)], 1
    if form is None:
        if isinstance(first, RecordError):
            raise first
        raise place.error(f"unknown format ({_keys(first)}); supported are {SUPPORTED}")
    needs = f"every record of this file ({form.name}) is an object with {form.needs}"
    found = []
    for rows in _grouped(cells, form):
        with sieve.trying([place for place, _ in rows]):
            found += form.read([(place, _object(value, place, needs)) for place, value in rows])
    return found, len(cells)


def _record(value: Any) -> Any:
    """A dialogue that is a bare list of messages, as a record; anything else as it is."""
    return {"messages": value} if isinstance(value, list) and value and is_message(value[0]) else value


def _told(cells: Sequence[Cell]) -> Format | None:
    """The format of the first record that tells one."""
    return next((form for _, value in cells if (form := format_of(value)) is not None), None)


def _by_name(cells: list[Cell]) -> list[Cell]:
    """The records, where the file is an object that holds each under its name, as some give LoCoMo."""
    place, whole = cells[0]
    if len(cells) > 1 or not isinstance(whole, dict) or is_message(whole) or format_of(whole) is not None:
        return cells
    if not all(isinstance(value, dict) for value in whole.values()):
        return cells
    named = [
        (Place(place.file, item=number), {"id": name, **value}) for number, (name, value) in enumerate(whole.items(), 1)
    ]
    return named if _told(named) is not None else cells


def _grouped(cells: list[Cell], form: Format) -> list[list[Cell]]:
    """The records of each dialogue, where its first stands."""
    groups: dict[str | int, list[Cell]] = {}
    for number, (place, value) in enumerate(cells):
        key = form.group(value) if form.group is not None and isinstance(value, dict) else None
        groups.setdefault(number if key is None else key, []).append((place, value))
    return list(groups.values())


def _object(value: Any, place: Place, needs: str) -> dict[str, Any]:
    """The record, if it could be read and is an object."""
    if isinstance(value, RecordError):
        raise value
    return as_object(value, place, needs)


def _keys(first: Any) -> str:
    """What the first record is, for those who expected something else."""
    if not isinstance(first, dict):
        return kind(first)
    return f"an object with {', '.join(shown(key) for key in list(first)[:5])}" if first else "an empty object"


def _named(found: list[Found], stem: str) -> list[Dialogue]:
    """The dialogues with unique ids."""
    dialogues = []
    taken: set[str] = set()
    copies: Counter[str] = Counter()
    for number, one in enumerate(found, 1):
        name = one.id or (stem if len(found) == 1 else f"{stem}-{number}")
        name = f"{name}/{one.label}" if one.label else name
        unique = name
        while unique in taken:
            copies[name] += 1
            unique = f"{name}#{copies[name] + 1}"
        taken.add(unique)
        dialogues.append(Dialogue(unique, tuple(one.messages), str(one.place), one.tools, one.date))
    return dialogues
