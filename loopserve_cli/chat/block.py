'''Messages of several lines between """ and """.

A block begins with the marks and ends with the next ones. A text that merely begins with them, such as a program with
its docstring, has more behind the second ones, and is sent as it is.
'''

from __future__ import annotations

from prompt_toolkit.document import Document
from prompt_toolkit.validation import ValidationError, Validator

MARKS = '"""'
GOES_ON = 'Enter adds a line; """ and Enter send the message, Ctrl-C drops it'


def is_open(text: str) -> bool:
    """Whether the text has begun a block that did not end yet."""
    return text.lstrip().startswith(MARKS) and text.count(MARKS) % 2 == 1


def block_of(text: str) -> str | None:
    """What stands in the block, without its first and last line's ends; None where the text is no block."""
    text = text.strip()
    if text.count(MARKS) != 2 or not (text.startswith(MARKS) and text.endswith(MARKS)):
        return None
    return text.removeprefix(MARKS).removesuffix(MARKS).strip("\n")


class BlockHint(Validator):
    """While a block is open, says below the input line how it ends; Enter does not send such text anyway."""

    def validate(self, document: Document) -> None:
        """Raise the hint as the error that prompt_toolkit shows."""
        if is_open(document.text):
            raise ValidationError(cursor_position=document.cursor_position, message=GOES_ON)
