"""A file of JSON lines that only grows, line by line, each on the disk before the next."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from loopserve_cli.errors import LoopserveError
from loopserve_cli.transcript.write import write_all


class Appended:
    """An open file; a line that a kill tore is cut off before anything is added."""

    def __init__(self, path: Path, handle: int) -> None:
        """Take over an open file."""
        self.path = path
        self.handle = handle

    @classmethod
    def opened(cls, path: Path) -> Appended:
        """The file, made where there is none; raises OSError as open(), and for a device or a pipe."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        handle = os.open(path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
        return cls(path, handle)

    def add(self, line: dict[str, Any]) -> None:
        """Write it and wait until the disk has it; what fails half-way, or is interrupted, is taken back."""
        length = os.fstat(self.handle).st_size
        whole = False
        try:
            write_all(self.handle, json.dumps(line, ensure_ascii=False).encode() + b"\n")
            whole = True
        finally:
            if not whole:
                os.ftruncate(self.handle, length)

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line; the torn rest after the last one is cut off. Raises LoopserveError for one that is none."""
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.ftruncate(self.handle, len(whole))
        return objects_of(self.path, whole)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.handle)


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Every whole line of such a file, which is left as it is; raises OSError, and LoopserveError as `lines`."""
    raw = path.read_bytes()
    return objects_of(path, raw[: raw.rfind(b"\n") + 1])


def objects_of(path: Path, whole: bytes) -> list[dict[str, Any]]:
    """The objects of so many lines of the file; raises LoopserveError for a line that is none."""
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise LoopserveError(f"{path}, line {number}: is no JSON object; give --out to begin anew")
        found.append(data)
    return found
