"""Files whose text goes in front of the next message: all that were asked for, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from loopserve_cli import text_file
from loopserve_cli.chat.figures import count
from loopserve_cli.chat.room import Length, check_readable, length_of, room
from loopserve_cli.chat.session import Attachment, Session
from loopserve_cli.errors import UsageError
from loopserve_cli.files import MESSAGE_LIMIT
from loopserve_cli.nearest import hint_file

# So many characters are tokenised within half a second.
SOON = 500_000


def attach(session: Session, paths: Sequence[Path]) -> None:
    """Say of every file how long it is and whether it fits, and attach it; one that is attached already is left out.

    Raises UsageError for a file that is no text or longer than the whole context: then none is attached.
    """
    before = list(session.attachments)
    try:
        for path in paths:
            one = Attachment(path.name, read_text(path))
            if one not in session.attachments:
                _attach(session, one)
    except BaseException:  # also on Ctrl-C
        session.attachments = before
        raise


def _attach(session: Session, one: Attachment) -> None:
    if len(one.text) > SOON:
        with session.err.status(Text(f"counting the tokens of {one.name}")):
            length = length_of(session, one.text)
    else:
        length = length_of(session, one.text)
    check_readable(session, one.name, length)
    fits = _fits(session, length)
    session.attachments.append(one)
    how_long = f"{count(len(one.text))} characters, {length}{fits}"
    session.note(f"{one.name}: {how_long}, go in front of your next message", between_words=True)


def _fits(session: Session, length: Length) -> str:
    """That it fits, and into what; nothing where there is no limit, or where it was said that it does not."""
    left = room(session)
    return "" if left is None or length.tokens > left else f" of {count(left)} free"


def read_text(path: Path) -> str:
    """A text file; raises LoopserveError in one line for anything else."""
    try:
        text = text_file.read_text(path, MESSAGE_LIMIT, "give one of its files", streams=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path{hint_file(path)}") from None
    if "\0" in text:
        raise UsageError(f"{path}: is a binary file; give a text file")
    if not text.strip():
        raise UsageError(f"{path}: is empty")
    return text.replace("\r\n", "\n")
