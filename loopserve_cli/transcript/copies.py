"""Temporary copies beside a file: .NAME.01234567.tmp, locked by who writes one, removed when that one is dead."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from loopserve_cli.transcript.lock import lock

LONGEST_NAME = 230  # bytes of a name that may stand in a temporary one: file systems end at 255


def remove_left(target: Path) -> None:
    """Remove what killed processes left of their copies of a file; a living one's is locked."""
    form = re.compile(re.escape(_beginning(target)) + r"[0-9a-f]{8}\.tmp")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if form.fullmatch(entry.name):
                _remove_unless_locked(Path(entry.path), target)


def new_copy(target: Path, mode: int) -> tuple[int, Path]:
    """A new file beside `target`, locked, and its name."""
    while True:
        path = target.with_name(f"{_beginning(target)}{secrets.token_hex(4)}.tmp")
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, mode)
        with contextlib.suppress(BlockingIOError):  # one that clears up was faster than our lock
            lock(handle)
            if os.fstat(handle).st_nlink:
                return handle, path
        os.close(handle)


def _beginning(target: Path) -> str:
    """How the temporary names for a file begin."""
    return f".{os.fsdecode(os.fsencode(target.name)[:LONGEST_NAME])}."


def _remove_unless_locked(path: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # A kill between naming a file and removing its temporary name leaves both.
            if (target.exists() and target.samefile(path)) or lock(handle):
                path.unlink()
        finally:
            os.close(handle)
