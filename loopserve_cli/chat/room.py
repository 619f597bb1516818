"""What comes with the next message, and whether the model's context has room for it."""

from __future__ import annotations

from dataclasses import dataclass

from loopserve_cli.chat.figures import count
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Length:
    """A text's length in tokens: `exact`, or at least so many."""

    tokens: int
    exact: bool = True

    def __str__(self) -> str:
        """With its unit."""
        return f"{'' if self.exact else 'at least '}{count(self.tokens)} tokens"


def length_of(session: Session, text: str) -> Length:
    """How long a user's text is, by its characters alone where that tells that the model cannot read it."""
    template, limit = session.conversation.template, session.conversation.engine.context_limit
    least = template.least([text], limit)
    if limit is not None and least > limit:
        return Length(least, exact=False)
    return Length(template.count("user", text))


def attached(session: Session) -> int:
    """How many tokens the attached files are."""
    return sum(length_of(session, one.text).tokens for one in session.attachments)


def room(session: Session) -> int | None:
    """How many tokens the context has beside what is in the cache and what is attached; None without a limit."""
    engine = session.conversation.engine
    if engine.context_limit is None:
        return None
    return max(0, engine.context_limit - len(engine.tokens) - attached(session))


def check_readable(session: Session, name: str, length: Length) -> None:
    """Raise UsageError for a text that not even an empty dialogue has room for; warn where this one has none."""
    limit = session.conversation.engine.context_limit
    if limit is not None and length.tokens > limit:
        raise UsageError(f"{name}: {length}, but the model reads at most {count(limit)}; give a shorter file")
    left = room(session)
    if left is not None and length.tokens > left:
        slides = session.on_full == "slide"
        then = "the oldest turns will be forgotten for it"
        otherwise = "it will not fit unless the dialogue is shortened (/undo, /clear, or /full slide)"
        session.warn(f"{name}: {length}, but the context has room for {count(left)}; {then if slides else otherwise}")
