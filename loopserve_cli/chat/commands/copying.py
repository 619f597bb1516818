"""`/copy`: the last answer, to be pasted elsewhere."""

from __future__ import annotations

from typing import TextIO, cast

from loopserve_cli.chat.clipboard import Clipboard
from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.figures import count
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError


def copy(session: Session, argument: str) -> None:
    """Put the last answer into the clipboard, and say how."""
    no_argument(argument, "/copy")
    answer = last_answer(session)
    how = Clipboard(terminal_of(session)).put(answer)
    session.note(f"{count(len(answer))} characters {how}")


def last_answer(session: Session) -> str:
    """What was answered last, without thoughts; raises UsageError when nothing was."""
    said = [m.content for m in session.conversation.messages if m.role == "assistant" and m.content.strip()]
    if not said:
        raise UsageError("there is no answer to copy yet")
    return said[-1]


def terminal_of(session: Session) -> TextIO | None:
    """Where the terminal is written to; None when neither stream is one."""
    for console in (session.out, session.err):
        if console.is_terminal and not console.is_dumb_terminal:
            return cast("TextIO", console.file)
    return None
