"""Lines that the demo model understands, in an order in which each has what it needs before it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A line to type, what it shows, and the right answer; None where any polite word will do."""

    line: str
    shows: str
    answer: str | None = None


EXAMPLES = (
    Example("The room of Miro is 417. The pet of Tesa is fox.", "tell it facts"),
    Example("How are you today?", "talk of something else", "I am well, thank you. How are you?"),
    Example("What is the room of Miro?", "ask for a fact", "The room of Miro is 417."),
    Example("The manager of Miro is Tesa.", "tell it who belongs to whom"),
    Example(
        "What is the pet of the manager of Miro?",
        "ask through a person",
        "The manager of Miro is Tesa, and the pet of Tesa is fox.",
    ),
    Example("The room of Miro is now 208.", "change a fact"),
    Example("Do you remember the room of Miro?", "ask for what it is now", "The room of Miro is now 208."),
    Example("What is the door code of Tesa?", "ask for what nobody said", "The door code of Tesa is not known to me."),
)
# Enough for one right answer.
FIRST = EXAMPLES[:3]
