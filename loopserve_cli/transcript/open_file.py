"""A file that is held open and locked, and that remembers how it was left."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.errors import LoopserveError
from loopserve_cli.transcript.copies import remove_left
from loopserve_cli.transcript.lock import InUseError, holder, lock
from loopserve_cli.transcript.write import PRIVATE, put, target_of, told, write_all

BLOCK = 2**20


class ChangedError(LoopserveError):
    """The file is not as it was left; `what` says what happened to it."""

    def __init__(self, path: Path, what: str, removed: bool = False) -> None:
        """One line that says what to do, for whoever cannot go on elsewhere."""
        super().__init__(f"{path}: {what} while in use; save the dialogue under another name")
        self.what = f"{path} {what}"
        self.removed = removed


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file it is, how long, and when it was last written, in ns."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """From what the system says of a file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class OpenFile:
    """Nobody else who asks for the lock gets the file until it is closed. Methods raise LoopserveError.

    `path` is the name as given, for people; `target` is where it leads. `locked` is false where there are no locks.
    The inode is kept open, so no other file can have its number meanwhile.
    """

    def __init__(self, path: Path, target: Path, handle: int, content: bytes | None = None) -> None:
        """Take over an open file; its `content` is read unless given."""
        self.path, self.target = path, target
        self._stamp: Stamp
        self._take(handle, content)

    @classmethod
    def new(cls, path: Path, data: bytes) -> OpenFile:
        """A file that did not exist; raises ExistsError if it does."""
        with told(path):
            target = target_of(path)
            return cls(path, target, put(target, data, False, PRIVATE), data)

    @classmethod
    def existing(cls, path: Path, alone: bool) -> OpenFile:
        """A file that exists, from now on its owner's alone; with `alone`, InUseError while another chat has it."""
        with told(path):
            target = target_of(path)
            while True:
                handle = os.open(target, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK)
                try:
                    if _locked_as_named(path, target, handle, alone):
                        break
                except BaseException:
                    os.close(handle)
                    raise
                os.close(handle)
            remove_left(target)
            return cls(path, target, handle)

    @property
    def stamp(self) -> Stamp:
        """How the file was left."""
        return self._stamp

    def check(self) -> None:
        """Raise ChangedError unless the name leads to this file, and its bytes are those that were left."""
        try:
            now = Stamp.of(os.stat(self.target))
        except (FileNotFoundError, NotADirectoryError):
            raise ChangedError(self.path, "was removed or moved", removed=True) from None
        except OSError as error:
            raise ChangedError(self.path, f"cannot be reached ({error.strerror})") from None
        left = self._stamp
        if (now.device, now.inode) != (left.device, left.inode):
            raise ChangedError(self.path, "was replaced by another file")
        if now.size != left.size:
            raise ChangedError(self.path, "was cut off" if now.size < left.size else "was added to by another program")
        if now.modified != left.modified:  # perhaps only touched, or kept in coarser time by its file system
            with told(self.path):
                if self._hash_of_file().digest() != self._hash.digest():
                    raise ChangedError(self.path, "was edited by another program")
            self._stamp = now

    def append(self, data: bytes) -> None:
        """Add to the end and sync; a write that fails half-way is taken back."""
        self.check()
        length = self._stamp.size
        whole = False
        with told(self.path):
            try:
                write_all(self._handle, data)
                whole = True
            finally:  # also on Ctrl-C, or the next line would be joined to this one's half
                if not whole:
                    os.ftruncate(self._handle, length)
                self._stamp = Stamp.of(os.fstat(self._handle))
            self._hash.update(data)
            self._stamp = Stamp(self._stamp.device, self._stamp.inode, length + len(data), self._stamp.modified)
        self.check()  # what happened between the look and the write

    def replace(self, data: bytes) -> None:
        """Put these bytes in its place, in one step; a file that was removed is made again."""
        exists = True
        try:
            self.check()
        except ChangedError as changed:
            if not changed.removed:
                raise
            exists = False
        with told(self.path):
            self._take(put(self.target, data, exists, PRIVATE, self.check), data)

    def close(self) -> None:
        """Let go of it: others may open it."""
        self._closing()

    def _take(self, handle: int, content: bytes | None) -> None:
        """Hold this file, and let go of the one before."""
        before = getattr(self, "_closing", None)
        self._handle = handle
        self._closing = weakref.finalize(self, os.close, handle)
        try:
            self.locked = lock(handle)
        except BlockingIOError:
            self.locked = False
        self._hash = self._hash_of_file() if content is None else hashlib.blake2b(content)
        self._stamp = Stamp.of(os.fstat(handle))
        if before is not None:
            before()

    def _hash_of_file(self) -> hashlib.blake2b:
        found = hashlib.blake2b()
        offset = 0
        while block := os.pread(self._handle, BLOCK, offset):
            found.update(block)
            offset += len(block)
        return found


def _locked_as_named(path: Path, target: Path, handle: int, alone: bool) -> bool:
    """Lock it; false if the name led elsewhere by then. With `alone`, raises InUseError while another has it."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    try:
        lock(handle)
    except BlockingIOError:
        if alone:
            raise InUseError(path, holder(handle)) from None
    if not os.path.samestat(status, os.stat(target)):
        return False
    if stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
        os.fchmod(handle, stat.S_IMODE(status.st_mode) & 0o700)
    return True
