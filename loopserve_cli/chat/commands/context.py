"""The command that says, or changes, what happens when the context is full."""

from __future__ import annotations

from collections.abc import Sequence

from loopserve_cli.chat.figures import count
from loopserve_cli.chat.session import Session
from loopserve_cli.config import ON_FULL
from loopserve_cli.errors import UsageError

MEANS = {
    "stop": "a message that has no room is refused, and stays in the input line",
    "slide": "the oldest turns are forgotten until a message and its answer have room",
}


def full(session: Session, argument: str) -> None:
    """Show how full the context is and what happens when it is full, or change that."""
    if argument and argument not in ON_FULL:
        raise UsageError(f"/full {argument!r}: must be {' or '.join(ON_FULL)}")
    if argument:
        session.on_full = argument
        session.note(f"on full: {argument}; {MEANS[argument]}")
        return
    engine = session.conversation.engine
    limit = engine.context_limit
    of = "without a limit" if limit is None else f"of {count(limit)}"
    forgotten = sum(m.role == "user" and m.forgotten for m in session.conversation.messages)
    lines = [
        f"{count(len(engine.tokens))} tokens {of} are in the cache",
        f"on full: {session.on_full}; {MEANS[session.on_full]}",
    ]
    if forgotten:
        lines.append(f"forgotten so far: {count(forgotten)} turns")
    session.data("\n".join(lines))


def full_choices(_session: Session, before: list[str]) -> Sequence[str]:
    """Completions: what may happen."""
    return () if before else ON_FULL
