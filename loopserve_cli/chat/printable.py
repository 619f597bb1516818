"""Text that may be written to a terminal."""

from __future__ import annotations

# Control characters, escapes included, would act on the terminal. Newline and tab are wanted, a carriage return is not
# missed.
UNPRINTABLE: dict[int, str | None] = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}
UNPRINTABLE |= {code: "\ufffd" for code in range(0x7F, 0xA0)} | {13: None}


def printable(text: str) -> str:
    """The text with its control characters made visible."""
    return text.translate(UNPRINTABLE)
