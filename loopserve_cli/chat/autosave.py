"""The transcript on disk, kept equal to the dialogue after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter

OpenWriter = Callable[[], TranscriptWriter]


class Autosave:
    """Appends what is new and rewrites when something older changed.

    A failed write is told once through `complain`; the next `sync` tries again with the whole dialogue.
    """

    def __init__(
        self,
        path: Path | None,
        open_writer: OpenWriter | None,
        complain: Callable[[str], None],
        writer: TranscriptWriter | None = None,
        written: Sequence[Message] = (),
    ) -> None:
        """Save to `path`, opened at the first message; no path saves nothing. `written` is in the file already."""
        self.path = path
        self.problem: str | None = None
        self._open = open_writer
        self._complain = complain
        self._writer = writer
        self._written: list[Message] | None = list(written)
        self._date: str | None = None

    @classmethod
    def off(cls) -> Autosave:
        """Saves nothing."""
        return cls(None, None, lambda _line: None)

    @classmethod
    def new(cls, path: Path, header: Header, complain: Callable[[str], None], at_once: bool = False) -> Autosave:
        """A new file; `at_once` creates it now, and raises LoopserveError if that fails or the file exists."""

        def create() -> TranscriptWriter:
            return TranscriptWriter(path, header)

        return cls(path, create, complain, writer=create() if at_once else None)

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

    def _write(self, messages: list[Message]) -> None:
        if self._writer is None:
            assert self._open is not None
            self._writer = self._open()
        if self._date is not None:
            self._writer.header = replace(self._writer.header, date=self._date)
        known = self._written
        if known is not None and messages[: len(known)] == known:
            for message in messages[len(known) :]:
                self._writer.append(message)
                known.append(message)
        else:
            self._written = None
            self._writer.rewrite(messages)
            self._written = messages
