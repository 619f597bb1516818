"""Writes a dialogue in our own format, line by line as a chat goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.lock import InUseError
from loopserve_cli.transcript.open_file import OpenFile, Stamp
from loopserve_cli.transcript.ours import Header, check_message, checked_lines, message_line
from loopserve_cli.transcript.place import Place
from loopserve_cli.transcript.read import Warn, read_transcripts, to_stderr
from loopserve_cli.transcript.source import SourceFile, check_length


class TranscriptWriter:
    """One dialogue's file in our format, for its owner's eyes alone. Every finished call is on the disk.

    It is held open and locked until `close`, or the end of the process. All methods raise LoopserveError when the file
    cannot be written, and leave it as it was; ChangedError when another program changed it, and never touch its work.
    """

    def __init__(self, path: Path, header: Header, overwrite: bool = False, messages: Sequence[Message] = ()) -> None:
        """Create the file, with its folders, holding the header and `messages`: all of it or nothing."""
        self._last: Role | None
        self._count: int
        data = checked_lines(header, messages, str(path))
        if overwrite and path.exists():
            file = OpenFile.existing(path, alone=True)
            file.replace(data)
        else:
            file = OpenFile.new(path, data)
        self._file = file
        self.header = header
        self._held(messages)

    @classmethod
    def _opened(cls, file: OpenFile, header: Header, messages: list[Message]) -> TranscriptWriter:
        """A writer that goes on with an existing file."""
        writer = cls.__new__(cls)
        writer._file, writer.header = file, header
        writer._held(messages)
        return writer

    @property
    def path(self) -> Path:
        """The file, as it was named."""
        return self._file.path

    @property
    def target(self) -> Path:
        """The file's whole path, links followed."""
        return self._file.target

    @property
    def locked(self) -> bool:
        """Whether other chats are kept off: not every file system has locks."""
        return self._file.locked

    @property
    def stamp(self) -> Stamp:
        """How the file was left."""
        return self._file.stamp

    def check(self) -> None:
        """Raise ChangedError unless the file is as it was left."""
        self._file.check()

    def append(self, message: Message) -> None:
        """Add one message; raises TranscriptError for one that the reader would refuse."""
        place = Place(str(self.path), part=f"message {self._count + 1}")
        check_message(message, self._last, place, self.header.questions_only)
        self._file.append(message_line(message))
        self._last = message.role
        self._count += 1

    def rewrite(self, messages: Iterable[Message]) -> None:
        """Replace all messages, after an undo or an edit; the file is either the old one or the new one."""
        kept = list(messages)
        self._file.replace(checked_lines(self.header, kept, str(self.path)))
        self._held(kept)

    def close(self) -> None:
        """Let go of the file: other chats may open it."""
        self._file.close()

    def _held(self, messages: Sequence[Message]) -> None:
        self._last = messages[-1].role if messages else None
        self._count = len(messages)


def resume(path: Path, warn: Warn = to_stderr, alone: bool = False) -> tuple[Header, list[Message], TranscriptWriter]:
    """Open a transcript to go on with it: its header, its messages (perhaps none yet), and a writer.

    A last line that was cut off is removed from the file, and `warn` is told. Raises TranscriptError for a file in
    another format, or with several dialogues; with `alone`, InUseError while another chat has it open.
    """
    check_length(path)  # before all of it is read to see whether another program changes it
    try:
        file = OpenFile.existing(path, alone)
    except InUseError:
        raise
    except LoopserveError:
        read_one(path, warn)  # what it says of a file that cannot be read is plainer
        raise
    try:
        header, messages, whole = read_one(path, warn)
        file.check()
        writer = TranscriptWriter._opened(file, header, messages)
        if not whole:
            writer.rewrite(messages)
    except BaseException:
        file.close()
        raise
    return header, messages, writer


def read_one(path: Path, warn: Warn = to_stderr) -> tuple[Header, list[Message], bool]:
    """The one dialogue of a transcript, and whether its last line is whole; the file is left as it is.

    Raises TranscriptError as `resume` does.
    """
    source = SourceFile.read(path)
    if not source.is_ours():
        hint = f"make one with: loopserve convert {path} NEW.jsonl --to loopserve"
        raise source.place.error(f"is not a loopserve transcript, so it cannot be resumed; {hint}")
    transcripts = read_transcripts(source, warn)
    if len(transcripts) > 1:
        raise source.place.error(f"holds {len(transcripts)} dialogues; only a file with one can be resumed")
    return transcripts[0].header, transcripts[0].messages, source.ends_whole
