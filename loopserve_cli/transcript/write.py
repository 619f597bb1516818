"""Writes whole files: in one step under their names, all of it or nothing, whatever ends the process meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from loopserve_cli.errors import LoopserveError
from loopserve_cli.transcript.copies import new_copy, remove_left
from loopserve_cli.transcript.lock import lock

PRIVATE = 0o600


class ExistsError(LoopserveError):
    """A file that was to be new is there already."""


def write_whole(path: Path, data: bytes, overwrite: bool, mode: int = 0o666) -> None:
    """Write a file with its folders; an existing one is replaced, its mode kept, or refused unless `overwrite`.

    `mode` is a new file's, less the umask; PRIVATE makes its new folders private too.
    """
    with told(path):
        target = target_of(path)  # a link stays a link
        replacing = overwrite and target.exists()
        handle = put(target, data, replacing, mode)
        os.close(handle)


def put(target: Path, data: bytes, replacing: bool, mode: int, last_look: Callable[[], None] = lambda: None) -> int:
    """Write a file, and only then give it its name; returns it open for appending, and locked where that can be.

    With `replacing` it takes the place of what is there, and keeps that one's mode unless `mode` is PRIVATE;
    `last_look` may still raise right before. Raises OSError, FileExistsError among them, and leaves nothing of it.
    """
    _make_folder(target.parent, 0o700 if mode == PRIVATE else 0o777)
    if replacing:
        _check_replaceable(target)
    remove_left(target)
    if not replacing and (unnamed := _put_unnamed(target, data, mode)) is not None:
        return unnamed
    handle, temporary = new_copy(target, mode)
    try:
        if replacing and mode != PRIVATE:
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        write_all(handle, data)
        if replacing:
            last_look()
            os.replace(temporary, target)
        else:
            _give_name(temporary, target)
    except BaseException:  # also on Ctrl-C
        os.close(handle)
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    return handle


def target_of(path: Path) -> Path:
    """The whole path with links followed: it stays right when the working folder changes."""
    try:
        return path.resolve()
    except FileNotFoundError:
        raise LoopserveError(f"{path}: the working folder was removed; give the whole path") from None
    except RuntimeError:
        raise LoopserveError(f"{path}: is a link that leads to itself; give another name") from None
    except ValueError:
        raise LoopserveError(f"{path}: holds a NUL, which no file name can; give another name") from None


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """What the file system refuses becomes one line about `path`."""
    try:
        yield
    except FileExistsError:
        if os.path.lexists(path):
            raise ExistsError(f"{path}: exists already; give another name") from None
        raise write_error(path, NotADirectoryError()) from None
    except OSError as error:
        raise write_error(path, error) from None


def write_error(path: Path, error: OSError) -> LoopserveError:
    """A failed write in one line that says what to do."""
    if isinstance(error, PermissionError):
        return LoopserveError(f"{path}: no permission to write it; change its mode or give another name")
    if isinstance(error, FileNotFoundError):
        return LoopserveError(f"{path}: was removed or moved while in use; save the dialogue under another name")
    if isinstance(error, IsADirectoryError):
        return LoopserveError(f"{path}: is a folder; give a file name")
    if isinstance(error, NotADirectoryError):
        return LoopserveError(f"{path}: cannot be written: a part of its path is a file; give another name")
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "give another name"
    return LoopserveError(f"{path}: cannot be written: {error.strerror}; {hint}")


def write_all(handle: int, data: bytes) -> None:
    """Write every byte and wait until the disk has them."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
    with contextlib.suppress(OSError):  # a file of another user's
        # The system's own stamps come in ticks of some milliseconds; this one is like no other write's.
        os.utime(handle, ns=(time.time_ns(),) * 2)
    os.fsync(handle)


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder with its parents, each new one with that mode."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode, exist_ok=True)


def _check_replaceable(target: Path) -> None:
    """Raise OSError unless a file may take this one's place."""
    if target.is_dir():
        raise IsADirectoryError
    if not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError  # the folder would let us, but the file's owner would not


def _put_unnamed(target: Path, data: bytes, mode: int) -> int | None:
    """Write a file that has no name until it is whole, so a kill leaves nothing; None where the system cannot.

    See O_TMPFILE in open(2).
    """
    try:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            handle = os.open(target.parent, os.O_TMPFILE | os.O_RDWR | os.O_APPEND, mode)
        except BaseException:
            os.close(folder)
            raise
    except (AttributeError, OSError):  # what is really wrong, the other way will say
        return None
    named = False
    try:
        lock(handle)
        write_all(handle, data)
        os.link(f"/proc/self/fd/{handle}", target.name, dst_dir_fd=folder)
        named = True
        os.fsync(folder)
    except FileExistsError:
        raise
    except OSError:
        if not named:
            return None
    finally:
        os.close(folder)
        if not named:
            os.close(handle)
    return handle


def _give_name(temporary: Path, target: Path) -> None:
    """Name a finished file, unless the name is taken: then FileExistsError."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links here, so the name is taken first, and then filled
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        try:
            os.replace(temporary, target)
        except OSError:
            target.unlink()
            raise
    else:
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names, where a folder can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
