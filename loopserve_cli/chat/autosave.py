"""The transcript on disk, kept equal to the dialogue after every step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from loopserve_cli.chat.paths import new_transcript, numbered, transcripts_folder
from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter
from loopserve_cli.transcript.open_file import ChangedError
from loopserve_cli.transcript.write import ExistsError


class Autosave:
    """Appends what is new and rewrites when something older changed.

    A failed write is told once through `complain`; the next `sync` tries again with the whole dialogue. A file that
    another program changed is left to it: the whole dialogue goes on in a new one.
    """

    def __init__(
        self,
        path: Path | None,
        header: Header | None,
        complain: Callable[[str], None],
        writer: TranscriptWriter | None = None,
        written: Sequence[Message] = (),
    ) -> None:
        """Save to `path`, made with `header` at the first message, or in `writer`'s file, which holds `written`."""
        self.path = path
        self.problem: str | None = None
        self._header = header
        self._complain = complain
        self._written: list[Message] | None = list(written)
        self._date: str | None = None
        self._writer: TranscriptWriter | None = None
        self._first = writer.target if writer is not None else path
        if writer is not None:
            self._hold(writer)

    @classmethod
    def off(cls) -> Autosave:
        """Saves nothing."""
        return cls(None, None, lambda _line: None)

    @classmethod
    def new(
        cls,
        path: Path,
        header: Header,
        complain: Callable[[str], None],
        at_once: bool = False,
        messages: Sequence[Message] = (),
    ) -> Autosave:
        """A new file; `at_once` creates it now with `messages`, and raises LoopserveError if that fails or it exists.

        Else it is created at the first message, under the next free name if another chat took `path` meanwhile.
        """
        if at_once:
            return cls(path, None, complain, TranscriptWriter(path, header, messages=messages), messages)
        return cls(path, header, complain)

    @classmethod
    def going_on(
        cls, writer: TranscriptWriter, written: Sequence[Message], complain: Callable[[str], None]
    ) -> Autosave:
        """A file that holds `written` already."""
        return cls(writer.path, None, complain, writer, written)

    @property
    def begun(self) -> bool:
        """Whether the file exists: nothing is created before there is something to keep."""
        return self._writer is not None

    def begin(self, date: str) -> None:
        """The file's dialogue begins anew on that date: the next `sync` writes it whole."""
        self._date = date
        self._written = None

    def sync(self, messages: Sequence[Message]) -> None:
        """Make the file hold exactly `messages`."""
        if self.path is None or (self._writer is None and not messages):
            return
        try:
            self._write(list(messages))
        except LoopserveError as error:
            if self.problem is None:
                self._complain(f"not saved: {error}")
            self.problem = str(error)
            self._written = None
            return
        if self.problem is not None:
            self._complain(f"saved again: {self.path}")
        self.problem = None

    def close(self) -> None:
        """Let go of the file: other chats may open it."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, messages: list[Message]) -> None:
        if self._writer is None:
            self._begin(messages)
            return
        if self._date is not None:
            self._writer.header = replace(self._writer.header, date=self._date)
        known, self._written = self._written, None
        try:
            self._writer.check()
            if known is not None and messages[: len(known)] == known and len(messages) <= len(known) + 1:
                for message in messages[len(known) :]:
                    self._writer.append(message)
            else:
                self._writer.rewrite(messages)
        except ChangedError as changed:
            self._go_elsewhere(self._writer, changed, messages)
        self._written = messages

    def _begin(self, messages: list[Message]) -> None:
        """Create the file with all that was said."""
        assert self.path is not None and self._header is not None
        header = self._header if self._date is None else replace(self._header, date=self._date)
        writer = _create(numbered(self.path), header, messages)
        if writer.path != self.path:
            self._complain(f"{self.path} was taken by another chat; saving to {writer.path}")
        self._hold(writer)
        self._written = messages

    def _go_elsewhere(self, before: TranscriptWriter, changed: ChangedError, messages: list[Message]) -> None:
        """Leave the file to who changed it; the whole dialogue goes to a new one, beside it where that can be."""
        try:
            if self._first is None or not self._first.parent.is_dir():  # removed, and not for us to make again
                raise changed
            writer = _create(numbered(self._first), before.header, messages)
        except LoopserveError:
            writer = _create(numbered(new_transcript()), before.header, messages)
        self._complain(f"{changed.what}; the whole dialogue goes on in {writer.path}")
        before.close()
        self._hold(writer)

    def _hold(self, writer: TranscriptWriter) -> None:
        self._writer, self.path = writer, writer.path
        if not writer.locked:
            self._complain(f"{writer.path} cannot be locked on this file system; do not open it in two chats at once")


def _create(names: Iterable[Path], header: Header, messages: Sequence[Message]) -> TranscriptWriter:
    """A new transcript under the first name that is free; raises LoopserveError if it cannot be written."""
    for path in names:
        if path.parent == transcripts_folder():
            with contextlib.suppress(OSError):  # made by an earlier version, for everyone to read
                path.parent.chmod(0o700)
        with contextlib.suppress(ExistsError):
            return TranscriptWriter(path, header, messages=messages)
    raise AssertionError("names never end")
