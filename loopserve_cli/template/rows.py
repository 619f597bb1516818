"""Messages as templates read them."""

from __future__ import annotations

from typing import Any

from loopserve_cli.messages import Message

Row = dict[str, Any]


def row_of(message: Message) -> Row:
    """A message as templates read it."""
    return {"role": message.role, "content": message.content}
