"""What happens before a turn that the context may have no room for: it is said, or the oldest turns are forgotten."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loopserve_cli.chat.figures import count
from loopserve_cli.messages import Message

if TYPE_CHECKING:
    from loopserve_cli.chat.session import Session
    from loopserve_cli.conversation import Conversation

# A dialogue is nearly full when less than this share of the context is left.
NEARLY = 0.1
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
    length = _length(conversation, asked)
    if session.on_full == "slide" and length + answer > limit:
        _slide(session, text, answer, limit)
    elif length + needed > limit and session.on_full == "stop":
        _tell(session, length, limit)
    _length(conversation, conversation.messages)  # the message is tokenised in its own turn, within its time


def _tell(session: Session, length: int, limit: int) -> None:
    left = limit - length
    said = f"{count(left)} are left for the answer" if left > 0 else f"which is {count(1 - left)} too many"
    session.warn(
        f"the context is {'nearly full' if left > 0 else 'full'}: {count(length)} of {count(limit)} tokens with this "
        f"message, {said}; --on-full slide (in a chat: /full slide) forgets the oldest turns"
    )


def _slide(session: Session, text: str, answer: int, limit: int) -> None:
    """Forget the oldest turns that are still read until there is room for `answer` tokens; say which those were.

    Nothing is forgotten for a message that has no room even alone.
    """
    conversation = session.conversation
    before = conversation.messages
    starts = [place for place, m in enumerate(before) if m.role == "user" and not m.forgotten]
    tried, length = before, limit
    for end in [*starts[1:], len(before)] if starts else []:
        tried = [m if m.role == "system" else replace(m, forgotten=True) for m in before[:end]] + before[end:]
        length = _length(conversation, [*tried, Message("user", text)])
        if length + answer <= limit:
            break
    if length >= limit:
        return
    conversation.load(tried)
    turns = list(itertools.accumulate(int(m.role == "user") for m in tried))
    gone = [turns[i] for i, m in enumerate(tried) if m.forgotten and not before[i].forgotten]
    which = f"turn {gone[0]} is" if gone[0] == gone[-1] else f"turns {gone[0]}-{gone[-1]} are"
    session.warn(
        f"the context is full, so {which} forgotten: the model reads {count(length)} tokens with this message; "
        "the transcript keeps them"
    )


def _length(conversation: Conversation, messages: Sequence[Message]) -> int:
    """How many tokens the model is to read; none where the template has nobody to answer."""
    if not any(m.role == "user" and not m.forgotten for m in messages):
        return 0
    return len(conversation.template.ids(messages, generation_prompt=messages[-1].role == "user"))


def _most(messages: Sequence[Message]) -> int:
    """No dialogue has more tokens than it has bytes, and what a template writes around each message."""
    read = [m for m in messages if not m.forgotten]
    said = sum(len((m.content + (m.reasoning or "")).encode(errors="replace")) for m in read)
    return BEFORE + AROUND * len(read) + said
