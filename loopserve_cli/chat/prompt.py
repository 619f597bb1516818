"""The input line: history, completion, and the numbers of the dialogue below it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from loopserve_cli.chat.block import BlockHint
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.dashboard.source import switch
from loopserve_cli.chat.keys import bindings
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.terminal import encodable
from loopserve_cli.chat.toolbar import bottom
from loopserve_cli.errors import UsageError

HINT = {"validation-toolbar": "noinherit ansiyellow"}
STYLE = Style.from_dict({"bottom-toolbar": "noreverse ansibrightblack", "prompt": "ansicyan bold", **HINT})
REFRESH_SECONDS = 0.5
MENU_ROWS = 8


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
    """The prompt; `input` and `output` are the terminal's unless given. A dumb terminal has no toolbar."""
    dumb = is_dumb_terminal()
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
        key_bindings=bindings(session.interrupts, partial(switch_or_complain, session)),
        bottom_toolbar=None if dumb else lambda: bottom(session, get_app().output.get_size()),
        refresh_interval=0 if dumb else REFRESH_SECONDS,
        reserve_space_for_menu=0 if dumb else MENU_ROWS,
        style=STYLE,
        input=input,
        output=output,
    )


def switch_or_complain(session: Session) -> None:
    """Show the dashboard or hide it; the toolbar shows which."""
    try:
        switch(session)
    except UsageError as error:
        run_in_terminal(partial(session.complain, error))
