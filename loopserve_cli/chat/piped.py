"""What another program pipes in, or a file that is redirected to standard input."""

from __future__ import annotations

import os
import select
import stat
import sys

from loopserve_cli.errors import UsageError
from loopserve_cli.files import MESSAGE_LIMIT, Refused, read_stream

# Seconds until someone who forgot that a pipe stands open is told what is waited for.
PATIENCE = 1.0


def piped_text() -> str | None:
    """All of standard input, without the empty lines around it; None where that is a terminal, "" where it is blank.

    Raises UsageError for what is too long or no text.
    """
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
    return text.strip("\n") if text.strip() else ""


def has_input() -> bool:
    """Whether standard input is a pipe, a socket or a file, so that its text goes before a message that is given.

    Where nothing comes for a second, a line on stderr says what is waited for.
    """
    try:
        handle = sys.stdin.fileno()
        mode = os.fstat(handle).st_mode
    except (AttributeError, ValueError, OSError):  # closed, or none
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return False
    try:
        waiting = not select.select([handle], [], [], PATIENCE)[0]
    except (OSError, ValueError):  # a system that cannot look into pipes
        waiting = False
    if waiting and sys.stderr is not None:
        print("reading standard input, to stand before the message; </dev/null leaves it out", file=sys.stderr)
    return True
