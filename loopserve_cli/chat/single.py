"""One turn without a conversation around it: the answer on stdout, its statistics on stderr."""

from __future__ import annotations

from loopserve_cli.chat.piped import has_input, piped_text
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.shown import NotShown
from loopserve_cli.errors import LoopserveError, UsageError


def only_message(message: str | None) -> str | None:
    """The message given, behind what is piped in; either alone; None when a person sits at the keyboard.

    Raises UsageError when there is nothing to say.
    """
    if message is None:
        text = piped_text()
        if text == "":
            raise UsageError("standard input is empty; pipe a message in, or give one as an argument")
        return text
    if not message.strip():
        raise UsageError("the message is empty; say something, or leave it out to chat")
    text = piped_text() if has_input() else None
    return f"{text}\n\n{message}" if text else message


def run_single(session: Session, message: str) -> int:
    """Ask once; returns the exit code. Raises LoopserveError when the turn fails."""
    session.single = True
    with session.interrupts.installed():
        try:
            record = session.ask(message)
        except NotShown as error:
            raise LoopserveError(str(error)) from error.__cause__
    if session.interrupts.ending is not None:
        return session.interrupts.exit_code
    if session.autosave.problem is not None:
        return 1
    return 130 if record is None or record.finish_reason == "cancelled" else 0
