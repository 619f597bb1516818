"""What a slash command is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """A name, what it does in one line, and the function that gets the rest of the line.

    `choices` completes a word from those before it; `takes_path` completes a file.
    """

    name: str
    run: Callable[[Session, str], None]
    help: str
    arguments: str = ""
    aliases: tuple[str, ...] = ()
    choices: Callable[[Session, list[str]], Sequence[str]] | None = None
    takes_path: bool = False

    @property
    def usage(self) -> str:
        """As it is typed."""
        return f"/{self.name} {self.arguments}".rstrip()


def no_argument(argument: str, usage: str) -> None:
    """Refuse an argument where there is none."""
    if argument:
        raise UsageError(f"{usage} takes no argument")


def path_argument(argument: str, usage: str) -> Path:
    """The rest of the line as a path; quotes around it are dropped, and ~ is the home folder."""
    text = argument.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if not text:
        raise UsageError(f"which file? {usage}")
    try:
        path = Path(text).expanduser()
        os.lstat(path.absolute())
    except RuntimeError:
        raise UsageError(f"{text}: whose home folder this is, is not known; give the whole path") from None
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no file's name: it holds a NUL or half a character") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{text[:40]!r}... is too long for a file's name") from None
        if not path.is_absolute() and not _has_working_folder():
            raise UsageError(f"{text}: the working folder was removed; give the whole path") from None
    return path


def _has_working_folder() -> bool:
    """Whether it has a name still: a removed one can be looked at as "." on some systems."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
