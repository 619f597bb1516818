"""A dialogue file's bytes, wherever they come from, and its lines as JSON."""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopserve_cli import files
from loopserve_cli.errors import TranscriptError
from loopserve_cli.nearest import hint_file
from loopserve_cli.transcript.ours import is_header
from loopserve_cli.transcript.place import Place, RecordError

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
Row = tuple[Place, bytes]
Cell = tuple[Place, Any]
"""A record's place and its value, which is a RecordError where it is no JSON."""

# The first bytes of what is no JSON text, and what to do with it.
FOREIGN_BYTES = {
    b"PAR1": "is a Parquet file; export it as JSON lines first (datasets: Dataset.to_json)",
    b"PK\x03\x04": "is a ZIP archive; unpack it and give one of its files",
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A dialogue file's bytes and its lines that are not blank; there is at least one."""

    place: Place
    stem: str
    raw: bytes
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> SourceFile:
        """The file as it is; raises TranscriptError when it cannot be opened, is empty, packed or no text."""
        raw = _file_bytes(path)
        if raw.startswith(GZIP):
            raise Place(str(path)).error("is packed with gzip; unpack it first")
        return cls._of(str(path), path.stem, raw)

    @classmethod
    def read_packed(cls, path: Path | None) -> SourceFile:
        """The file, unpacked where gzip packed it, or for None what comes from stdin; raises TranscriptError."""
        if path is None:
            return cls._of("stdin", "stdin", _unpacked("stdin", _stdin_bytes()))
        stem = Path(path.name.removesuffix(".gz")).stem
        return cls._of(str(path), stem, _unpacked(str(path), _file_bytes(path, streams=True)))

    @classmethod
    def _of(cls, name: str, stem: str, raw: bytes) -> SourceFile:
        place = Place(name)
        problem = next((text for magic, text in FOREIGN_BYTES.items() if raw.startswith(magic)), None)
        if problem is not None:
            raise place.error(problem)
        if b"\0" in raw:
            raise place.error("is a binary file; give a JSON or JSONL text file")
        raw = raw.removeprefix(BOM)
        rows = [(Place(name, line=number), line) for number, line in enumerate(raw.split(b"\n"), 1) if line.strip()]
        if not rows:
            raise place.error("is empty; there is no dialogue in it")
        return cls(place, stem, raw, rows)

    @property
    def ends_whole(self) -> bool:
        """Whether the last line was written to its end."""
        return self.raw.endswith(b"\n")

    def is_ours(self) -> bool:
        """Whether the first line is a header of our format."""
        first = self.rows[0]
        return b'"loopserve"' in first[1] and is_header(value_of(first))  # parsing a large file's only line takes long

    def lines(self) -> list[Cell]:
        """Every line's value."""
        return [cell_of(row) for row in self.rows]

    def records(self) -> list[Cell]:
        """The records of a JSONL file, or of the one JSON value that the file is; raises where it is neither."""
        first, *rest = self.rows
        if rest and value_of(first) is not None:
            return self.lines()
        try:
            whole = parse(self.place, self.raw)
        except TranscriptError:
            # JSONL with a broken first line: that line is the one to name.
            if first[1].lstrip().startswith(b"{") and any(isinstance(value_of(row), dict) for row in rest[:9]):
                return self.lines()
            raise
        if not isinstance(whole, list):
            return [(self.place if rest else first[0], whole)]
        if not whole:
            raise self.place.error("is an empty list; there is no dialogue in it")
        return [(Place(self.place.file, item=number), value) for number, value in enumerate(whole, 1)]


def cell_of(row: Row) -> Cell:
    """A line's value, or what is wrong with it."""
    try:
        return row[0], parse(*row)
    except RecordError as error:
        return row[0], error


def value_of(row: Row) -> Any:
    """A line's value, or None where it is no JSON by itself."""
    value = cell_of(row)[1]
    return None if isinstance(value, RecordError) else value


def parse(place: Place, data: bytes) -> Any:
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


def check_length(path: Path) -> None:
    """Raise TranscriptError for a file that is too large or none; what else is wrong with it, reading it tells."""
    try:
        files.check_file(path, files.TRANSCRIPT_LIMIT)
    except files.Refused as refusal:
        raise Place(str(path)).error(str(refusal)) from None
    except OSError:
        return


def _stdin_bytes() -> bytes:
    try:
        return files.read_stream(sys.stdin.buffer, files.TRANSCRIPT_LIMIT)
    except files.Refused as refusal:
        raise Place("stdin").error(str(refusal)) from None


def _file_bytes(path: Path, streams: bool = False) -> bytes:
    place = Place(str(path))
    try:
        return files.read_file(path, files.TRANSCRIPT_LIMIT, streams)
    except files.Refused as refusal:
        raise place.error(str(refusal)) from None
    except FileNotFoundError:
        raise place.error(f"no such file; check the path{hint_file(path)}") from None
    except IsADirectoryError:
        raise place.error("is a folder; give one of its files") from None
    except PermissionError:
        raise place.error("no permission to read it; change its mode or copy it") from None
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}") from None


def _unpacked(name: str, raw: bytes) -> bytes:
    """The bytes without gzip's packing, where they have it; raises TranscriptError for a damaged or cut-off file."""
    if not raw.startswith(GZIP):
        return raw
    try:
        return files.unpacked(raw, files.TRANSCRIPT_LIMIT)
    except files.Refused as refusal:
        raise Place(name).error(str(refusal)) from None
    except EOFError:
        raise Place(name).error("the gzip file is cut off; copy or download it again") from None
    except (OSError, zlib.error):
        raise Place(name).error("the gzip file is damaged; copy or download it again") from None
