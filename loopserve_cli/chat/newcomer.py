"""What somebody who has never seen the demo model is told: what it is, what to type, and what it cannot talk about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopserve_cli.demo.examples import EXAMPLES, FIRST
from loopserve_cli.demo.grammar import capitalised, outside

if TYPE_CHECKING:
    from loopserve_cli.chat.session import Session

DEMO = "demo"
QUOTED = 30
BEFORE = (
    "demo is a tiny model that knows nothing of the world; it",
    "remembers facts like these. Type them, one line at a time:",
)
AFTER = "/example gives you the next line, /help the commands"


def banner(session: Session) -> None:
    """What the demo model is, with lines to copy; nothing for other models, and where a dialogue goes on."""
    if session.model != DEMO or session.conversation.turns:
        return
    lines = [f"  {one.line}" for one in FIRST]
    for line in (*BEFORE, *lines, AFTER):
        session.note(line)


def asides(model: str, text: str) -> list[str]:
    """What to say beside the demo model's answer to a text that it was not taught to read; nothing for others."""
    strange = outside(text) if model == DEMO else None
    if strange is None:
        return []
    better = capitalised(text)
    if outside(better) is None:
        return ["this demo model needs the capital letter of a sentence:", f"  {better}"]
    short = strange if len(strange) <= QUOTED else strange[: QUOTED - 1] + "…"
    fact = EXAMPLES[0].line.partition(". ")[0]
    return [
        f'this demo model cannot talk about "{short}": ignore its answer',
        f"it understands lines like: {fact}.",
    ]
