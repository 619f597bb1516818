"""Writes dialogue files: whole ones at once, and our own format line by line as a chat goes on."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.ours import Header, check_message, checked_lines, message_line
from loopserve_cli.transcript.place import Place
from loopserve_cli.transcript.read import Warn, read_transcripts, to_stderr
from loopserve_cli.transcript.source import SourceFile


class TranscriptWriter:
    """One dialogue's file in our format. Every finished call is on the disk: a kill loses nothing.

    The file is opened anew for each write, so there is nothing to close. All methods raise
    LoopserveError when the file cannot be written, and leave it as it was.
    """

    def __init__(self, path: Path, header: Header, overwrite: bool = False) -> None:
        """Create the file, with its folders, holding the header only."""
        self.path = path
        self.header = header
        self._last: Role | None = None
        self._count = 0
        write_whole(path, checked_lines(header, (), str(path)), overwrite)

    @classmethod
    def _opened(cls, path: Path, header: Header, messages: list[Message]) -> TranscriptWriter:
        """A writer that goes on with an existing file."""
        writer = cls.__new__(cls)
        writer.path, writer.header = path, header
        writer._held(messages)
        return writer

    def append(self, message: Message) -> None:
        """Add one message; raises TranscriptError for one that the reader would refuse."""
        place = Place(str(self.path), part=f"message {self._count + 1}")
        check_message(message, self._last, place, self.header.questions_only)
        try:
            _append(self.path, message_line(message))
        except OSError as error:
            raise write_error(self.path, error) from None
        self._last = message.role
        self._count += 1

    def rewrite(self, messages: Iterable[Message]) -> None:
        """Replace all messages, after an undo or an edit; the file is either the old one or the new one."""
        kept = list(messages)
        write_whole(self.path, checked_lines(self.header, kept, str(self.path)), overwrite=True)
        self._held(kept)

    def _held(self, messages: list[Message]) -> None:
        self._last = messages[-1].role if messages else None
        self._count = len(messages)


def resume(path: Path, warn: Warn = to_stderr) -> tuple[Header, list[Message], TranscriptWriter]:
    """Open a transcript to go on with it: its header, its messages (perhaps none yet), and a writer.

    A last line that was cut off is removed from the file, and `warn` is told. Raises TranscriptError for
    a file in another format, or with several dialogues.
    """
    source = SourceFile.read(path)
    if not source.is_ours():
        hint = f"make one with: loopserve convert {path} NEW.jsonl --to loopserve"
        raise source.place.error(f"is not a loopserve transcript, so it cannot be resumed; {hint}")
    transcripts = read_transcripts(source, warn)
    if len(transcripts) > 1:
        raise source.place.error(f"holds {len(transcripts)} dialogues; only a file with one can be resumed")
    header, messages = transcripts[0].header, transcripts[0].messages
    writer = TranscriptWriter._opened(path, header, messages)
    if source.ends_whole:
        _check_writable(path)
    else:
        writer.rewrite(messages)
    return header, messages, writer


def write_whole(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a file with its folders; an existing one is replaced in one step, or refused unless `overwrite`."""
    target = path.resolve()  # a link stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and target.exists():
            _replace(target, data)
        else:
            _create(target, data)
    except FileExistsError:
        if target.exists():
            raise LoopserveError(f"{path}: exists already; give another name") from None
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


def _check_writable(path: Path) -> None:
    """Raise now, rather than after the first turn, when the file cannot be written."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    except OSError as error:
        raise write_error(path, error) from None


def _append(path: Path, data: bytes) -> None:
    """Add to a file's end and sync; a write that fails half-way is taken back."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        length = os.fstat(handle).st_size
        whole = False
        try:
            _write_all(handle, data)
            whole = True
        finally:  # also on Ctrl-C, or the next line would be joined to this one's half
            if not whole:
                os.ftruncate(handle, length)
    finally:
        os.close(handle)


def _create(target: Path, data: bytes) -> None:
    """Write a file that must not exist yet; a failed one is removed."""
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    whole = False
    try:
        _write_all(handle, data)
        whole = True
    finally:
        os.close(handle)
        if not whole:
            target.unlink()


def _replace(target: Path, data: bytes) -> None:
    """Put a new file in an old one's place, with its mode, in one step."""
    if target.is_dir():
        raise IsADirectoryError
    if not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError  # the folder would let us, but the file's owner would not
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    _create(temporary, data)
    try:
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except OSError:
        temporary.unlink()
        raise


def _write_all(handle: int, data: bytes) -> None:
    """Write every byte and wait until the disk has them."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)
