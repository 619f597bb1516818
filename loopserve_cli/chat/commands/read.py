"""The command that attaches files."""

from __future__ import annotations

import shlex
from pathlib import Path

from loopserve_cli.chat.attach import attach
from loopserve_cli.chat.commands.command import path_argument
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError

USAGE = "/read FILE ..."


def read(session: Session, argument: str) -> None:
    """Put the text of one or more files in front of the next message."""
    attach(session, paths(argument))


def paths(argument: str) -> list[Path]:
    """The files of a line: words, in quotes where they hold blanks; or one file, whose name is the whole line."""
    whole = path_argument(argument, USAGE)
    if whole.exists() or not any(letter.isspace() for letter in argument.strip()):
        return [whole]
    several = [path_argument(word, USAGE) for word in _words(argument)]
    return several if any(path.exists() for path in several) else [whole]


def open_word(argument: str) -> str:
    """What is typed of the last file of the line, where none before it is open: the part to complete."""
    try:
        before = _words(argument)
    except UsageError:  # a quote that is still open
        return argument[max(argument.rfind("'"), argument.rfind('"')) + 1 :]
    return "" if not before or argument[-1].isspace() else before[-1]


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        raise UsageError('a quote is not closed; write /read "MY FILE" ...') from None
