"""What a dialogue consists of, for those who talk and for those who read and write files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loopserve_cli.stats import TurnRecord

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `partial` marks an answer that was stopped, `record` is what its turn measured."""

    role: Role
    content: str
    partial: bool = False
    record: TurnRecord | None = None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue from a file: an id, and messages in order.

    At most one system message, first; then user and assistant in turn. The last message may be a user's,
    and a file that holds only questions (recorded answers unknown) has no assistant messages at all.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
