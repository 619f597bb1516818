"""The input line: history, completion, and the numbers of the dialogue below it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from loopserve_cli.chat.block import BlockHint
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.figures import UNKNOWN, duration, kv_bytes, memory, short, size
from loopserve_cli.chat.keys import bindings
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.terminal import encodable
from loopserve_cli.printable import printable_line

HINT = {"validation-toolbar": "noinherit ansiyellow"}
STYLE = Style.from_dict({"bottom-toolbar": "noreverse ansibrightblack", "prompt": "ansicyan bold", **HINT})
REFRESH_SECONDS = 0.5


class KeptHistory(FileHistory):
    """A history on disk that goes on in memory when the disk refuses; `complain` is told once."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        """The file is made at the first line."""
        super().__init__(str(path))
        self._complain: Callable[[str], None] | None = complain

    def store_string(self, string: str) -> None:
        """Append one entry."""
        try:
            super().store_string(encodable(string))
        except OSError as error:
            if self._complain is not None:
                self._complain(f"input history is not saved: {self.filename!r}: {error.strerror}")
            self._complain = None


def open_history(path: Path, complain: Callable[[str], None]) -> History:
    """The history at `path`, or one that ends with the chat when that cannot be used."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        path.chmod(0o600)
    except OSError as error:
        complain(f"input history is not saved: {path}: {error.strerror}")
        return InMemoryHistory()
    return KeptHistory(path, complain)


def prompt_session(
    session: Session, history: History, input: Input | None = None, output: Output | None = None
) -> PromptSession[str]:
    """The prompt; `input` and `output` are the terminal's unless given."""
    return PromptSession(
        [("class:prompt", "> ")],
        prompt_continuation="  ",
        multiline=True,
        history=history,
        enable_history_search=True,
        enable_suspend=True,
        tempfile_suffix=".md",
        complete_while_typing=False,
        validator=BlockHint(),
        completer=CommandCompleter(session),
        key_bindings=bindings(session.interrupts),
        bottom_toolbar=lambda: state_line(session),
        refresh_interval=REFRESH_SECONDS,
        style=STYLE,
        input=input,
        output=output,
    )


def state_line(session: Session) -> str:
    """The toolbar, or why there is none: drawing it must not end the chat."""
    try:
        return printable_line(toolbar(session))
    except Exception as error:
        return printable_line(f"{type(error).__name__}: {error}")


def toolbar(session: Session) -> str:
    """The dialogue's state in one line, with what needs attention first."""
    engine, last = session.conversation.engine, session.last
    parts = []
    if session.interrupts.recent():
        parts.append("press Ctrl-C again to quit")
    if session.autosave.problem is not None:
        parts.append("NOT SAVED")
    if session.attachments:
        parts.append("+ " + ", ".join(a.name for a in session.attachments))
    if session.unanswered is not None:
        parts.append("a message waits for its answer: /retry")
    parts += [
        session.model,
        engine.profile.name,
        fill(len(engine.tokens), engine.context_limit),
        f"TTFT {duration(last.ttft_ms) if last else UNKNOWN}",
        memory(last) if last else f"memory {UNKNOWN}",
        f"KV {size(kv_bytes(last) if last else None)}",
    ]
    return " · ".join(parts)


def fill(used: int, limit: int | None) -> str:
    """How full the context is."""
    if limit is None:
        return f"{short(used)} tokens"
    return f"{short(used)}/{short(limit)} tokens ({used / limit:.0%})"
