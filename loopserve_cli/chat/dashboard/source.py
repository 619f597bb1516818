"""What a chat tells its dashboard, and how it is switched on and off."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loopserve_cli.chat.dashboard.figures import Dialogue
from loopserve_cli.chat.dashboard.panel import Panel
from loopserve_cli.chat.view import is_plain
from loopserve_cli.errors import UsageError

if TYPE_CHECKING:
    from loopserve_cli.chat.session import Session


def dialogue(session: Session) -> Dialogue:
    """The dialogue at this moment. A turn that was taken back is no part of it."""
    conversation = session.conversation
    engine = conversation.engine
    return Dialogue(
        model=session.model,
        profile=engine.profile.name,
        tier=str(engine.profile.retain.get("tier", "device")),
        turn=conversation.turns,
        context_limit=engine.context_limit,
        gauges=engine.gauges(),
        past=tuple(record for record, stands in zip(session.records, session.standing(), strict=True) if stands),
    )


def attach(session: Session) -> None:
    """Give the session's view what it shows of the dialogue."""
    session.view.panel = Panel(partial(dialogue, session), session.out.encoding)


def switch(session: Session) -> str:
    """Show the dashboard, or stop showing it, from now on; says which. Raises UsageError where nothing can be drawn."""
    if session.view.name == "dashboard":
        session.view.dashboard = False
        return "dashboard off; /dashboard or F2 shows it again"
    if is_plain(session.out):
        raise UsageError("this terminal cannot show the dashboard: output is no terminal, or TERM is dumb")
    if session.view.name == "plain":
        from loopserve_cli.chat.live import LiveView

        thinking = session.view.shows_thinking
        session.view = LiveView(session.out)
        session.view.shows_thinking = thinking
        attach(session)
    session.view.dashboard = True
    return "dashboard on; /dashboard or F2 hides it"
