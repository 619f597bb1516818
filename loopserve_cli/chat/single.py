"""One turn without a conversation around it: the answer on stdout, its statistics on stderr."""

from __future__ import annotations

import sys

from loopserve_cli.chat.session import Session
from loopserve_cli.chat.shown import NotShown
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.files import MESSAGE_LIMIT, Refused, read_stream


def only_message(message: str | None) -> str | None:
    """The message given, or what is piped in; None when a person sits at the keyboard.

    Raises UsageError when there is nothing to say.
    """
    if message is not None:
        if not message.strip():
            raise UsageError("the message is empty; say something, or leave it out to chat")
        return message
    if sys.stdin is None:
        raise UsageError("there is no standard input; give a message")
    if sys.stdin.isatty():
        return None
    try:
        text = read_stream(sys.stdin.buffer, MESSAGE_LIMIT).decode("utf-8-sig").replace("\r\n", "\n")
    except Refused as refusal:
        raise UsageError(f"standard input {refusal}") from None
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text; save it as UTF-8") from None
    if not text.strip():
        raise UsageError("standard input is empty; pipe a message in, or give one as an argument")
    return text.strip("\n")


def run_single(session: Session, message: str) -> int:
    """Ask once; returns the exit code. Raises LoopserveError when the turn fails."""
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
