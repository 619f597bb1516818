"""Text that may be written to a terminal."""

from __future__ import annotations

from typing import TextIO

# Control characters, escapes included, would act on the terminal. Newline and tab are wanted, a carriage return is not
# missed.
UNPRINTABLE: dict[int, str | None] = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}
UNPRINTABLE |= {code: "\ufffd" for code in range(0x7F, 0xA0)} | {13: None}
# Overrides and isolates of direction show a line in another order than it has. The marks of languages written from
# right to left, U+200E and U+200F, reorder nothing else and stay.
UNPRINTABLE |= {code: "\ufffd" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def printable_line(text: str) -> str:
    """As `printable`, and in one line whatever a file's name holds."""
    return printable(text).replace("\n", "\u240a")


def shown(text: str, stream: TextIO) -> str:
    """The text as it goes to a stream: as it is, for a file or a pipe, made visible on a terminal."""
    return printable(text) if stream.isatty() else text


def printable(text: str) -> str:
    """The text with its control characters made visible."""
    return text.translate(UNPRINTABLE)
