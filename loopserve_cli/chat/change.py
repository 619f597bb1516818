"""A turn beside the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from loopserve_cli.chat.figures import duration
from loopserve_cli.messages import Message


def ttft_change(messages: Sequence[Message]) -> str:
    """How much longer the dialogue's last turn had to be waited for than the one before, as " (+12 ms)".

    Empty where one of the two was not measured, or where there is one turn only.
    """
    answers = [message for message in messages if message.role == "assistant"]
    known = [one.record.ttft_ms if one.record is not None else None for one in answers[-2:]]
    if len(known) < 2 or known[0] is None or known[1] is None:
        return ""
    change = known[1] - known[0]
    return f" ({'+' if change >= 0 else '-'}{duration(abs(change))})"
