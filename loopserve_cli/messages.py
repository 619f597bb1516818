"""What a dialogue consists of, for those who talk and for those who read and write files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loopserve_cli.stats import TurnRecord

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `partial` marks an answer that was stopped, `record` is what its turn measured.

    `reasoning` is what a model thought before its answer, where it thought aloud; it is no part of `content`.
    A `forgotten` message was said, but is no longer read: the context had no room for it.
    """

    role: Role
    content: str
    partial: bool = False
    record: TurnRecord | None = None
    reasoning: str | None = None
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue from a file: an id, and messages in order.

    At most one system message, first; then user and assistant in turn. The last message may be a user's,
    and a file that holds only questions (recorded answers unknown) has no assistant messages at all.
    `tools` are the functions that the model may call, JSON schemas as OpenAI writes them: the template gets them.
    `date` is when the dialogue began, in ISO form, where its file keeps that: templates write it into the prompt.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    date: str | None = None
