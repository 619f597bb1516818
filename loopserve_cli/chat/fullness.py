"""What happens before a turn that the context may have no room for: it is said, or the oldest turns are forgotten."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loopserve_cli.chat.figures import count
from loopserve_cli.errors import ContextLimitError
from loopserve_cli.messages import Message

if TYPE_CHECKING:
    from loopserve_cli.chat.session import Session
    from loopserve_cli.conversation import Conversation

# A dialogue is nearly full when less than this share of the context is left.
NEARLY = 0.1
# What a slide frees beside the answer's room.
SPARE = 0.1
# A template writes no more tokens than these before a dialogue without tools, and around each of its messages.
BEFORE, AROUND = 1024, 64


def check_length(session: Session, text: str) -> None:
    """Raise ContextLimitError for what is too long by its characters alone: it is not worth writing to a file."""
    conversation = session.conversation
    kept = [m for m in conversation.messages if session.on_full == "stop" or m.role == "system"]
    conversation.template.check_length([*kept, Message("user", text)], conversation.engine.context_limit)


def make_room(session: Session, text: str) -> None:
    """Before `text` is asked: where it and an answer have no room, say so, or forget the oldest turns for them.

    Lengths are those of the whole dialogue as the template writes it, in tokens. An answer is given max_new_tokens, or
    half the context where they are more.
    """
    conversation = session.conversation
    limit = conversation.engine.context_limit
    if limit is None:
        return
    answer = min(session.sampling.max_new_tokens, limit // 2)
    needed = max(answer, int(limit * NEARLY))
    asked = [*conversation.messages, Message("user", text)]
    if not conversation.tools and _most(asked) + needed <= limit:
        return
    length = _length(conversation, asked, limit)
    if session.on_full == "slide":
        if length is None or length + answer > limit:
            _slide(session, text, answer, limit)
    elif length is not None and length + needed > limit:
        _tell(session, length, limit)
    _length(conversation, conversation.messages, limit)  # the message is tokenised in its own turn, within its time


def _tell(session: Session, length: int, limit: int) -> None:
    left = limit - length
    if left <= 0 and session.single:  # the refusal says it
        return
    said = f"{count(left)} are left for the answer" if left > 0 else f"which is {count(1 - left)} too many"
    session.warn(
        f"the context is {'nearly full' if left > 0 else 'full'}: {count(length)} of {count(limit)} tokens with this "
        f"message, {said}; --on-full slide (in a chat: /full slide) forgets the oldest turns"
    )


def _slide(session: Session, text: str, answer: int, limit: int) -> None:
    """Forget the oldest turns that are still read until there is room for `answer` tokens; say which those were.

    What is left is read anew, so some more is freed, where that can be: else every turn from now on would do so.
    Nothing is forgotten for a message that has no room even alone.
    """
    conversation = session.conversation
    before, asked = conversation.messages, Message("user", text)
    starts = [place for place, m in enumerate(before) if m.role == "user" and not m.forgotten]
    alone = _length(conversation, [*_forgetting(before, len(before)), asked], limit)
    if not starts or alone is None or alone >= limit:
        return
    room = limit - answer
    if alone <= room - int(limit * SPARE):
        room -= int(limit * SPARE)

    def fits(end: int) -> bool:
        length = _length(conversation, [*_forgetting(before, end), asked], limit)
        return length is not None and length <= room

    ends = [*starts[1:], len(before)]
    end = ends[min(bisect.bisect_left(ends, True, key=fits), len(ends) - 1)]
    conversation.load(_forgetting(before, end))
    turns = list(itertools.accumulate(int(m.role == "user") for m in before))
    first, last = turns[starts[0]], turns[end - 1]
    which = f"turn {first} is" if first == last else f"turns {first}-{last} are"
    length = _length(conversation, [*conversation.messages, asked], limit)
    session.warn(
        f"the context is full, so {which} forgotten: the model reads {count(length)} tokens with this message; "
        "the transcript keeps them"
    )


def _forgetting(messages: Sequence[Message], end: int) -> list[Message]:
    """The dialogue without what was said before place `end`; the system prompt stays."""
    return [m if m.role == "system" else replace(m, forgotten=True) for m in messages[:end]] + list(messages[end:])


def _length(conversation: Conversation, messages: Sequence[Message], limit: int) -> int | None:
    """How many tokens the model is to read, nobody's where there is nobody to answer; None if far above `limit`."""
    if not any(m.role == "user" and not m.forgotten for m in messages):
        return 0
    try:
        return len(conversation.template.ids(messages, messages[-1].role == "user", limit))
    except ContextLimitError:  # told by its characters alone
        return None


def _most(messages: Sequence[Message]) -> int:
    """No dialogue has more tokens than it has bytes, and what a template writes around each message."""
    read = [m for m in messages if not m.forgotten]
    said = sum(len((m.content + (m.reasoning or "")).encode(errors="replace")) for m in read)
    return BEFORE + AROUND * len(read) + said
