"""Says who has a file open: an advisory lock on the file itself, which ends with the process that holds it.

There is no lock file beside it, so a kill leaves nothing behind. A replaced file is a new file: who replaces one locks
the new one first, and who takes a lock looks whether the name still leads to what was locked.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loopserve_cli.errors import LoopserveError

LOCKS = Path("/proc/locks")
# Seconds, many times what `in_use` takes.
GLANCE = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock, and the local time at which it began."""

    pid: int
    since: datetime

    def __str__(self) -> str:
        """For example "pid 4182, since 08:12"; the day too, where it is not today."""
        today = self.since.date() == datetime.now().date()
        return f"pid {self.pid}, since {self.since:{'%H:%M' if today else '%Y-%m-%d %H:%M'}}"


def lock(handle: int) -> bool:
    """Lock an open file; False where the system or its file system has no locks.

    Raises BlockingIOError while another has it, for longer than `in_use` looks.
    """
    try:
        import fcntl
    except ImportError:
        return False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(GLANCE)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def in_use(path: Path) -> bool:
    """Whether a chat has the file open, as far as locks tell; it is locked for others only while this looks."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def holder(handle: int) -> Holder | None:
    """Who holds the lock on an open file, as far as the system tells: see proc_locks(5)."""
    wanted = os.fstat(handle)
    try:
        rows = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return None
    for row in rows:
        # 1: FLOCK ADVISORY WRITE 4182 fe:00:131077 0 EOF
        if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(f":{wanted.st_ino}") and _has_open(row[4], wanted):
            return _process(int(row[4]))
    return None


class InUseError(LoopserveError):
    """A file that another chat has open: by whom, and how to go on with a copy."""

    def __init__(self, path: Path, who: Holder | None) -> None:
        """`who` is None where the system does not tell."""
        named = f" ({who})" if who is not None else ""
        copy = f"loopserve chat --resume {path} --save COPY.jsonl"
        super().__init__(f"{path}: is open in another chat{named}; leave that one, or go on with a copy: {copy}")


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    """Whether that process has the file open: inode numbers alone repeat on other file systems."""
    try:
        return any(os.path.samestat(os.stat(entry.path), wanted) for entry in os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _process(pid: int) -> Holder | None:
    import psutil

    try:
        return Holder(pid, datetime.fromtimestamp(psutil.Process(pid).create_time()))
    except psutil.Error:
        return None
