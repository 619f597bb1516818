"""/probe: a turn that is not kept."""

from __future__ import annotations

import contextlib

from loopserve_cli.chat.figures import turn_line
from loopserve_cli.chat.interrupts import quiet_keyboard
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.shown import NotShown, Shown
from loopserve_cli.errors import UsageError


def probe(session: Session, argument: str) -> None:
    """Ask, and leave nothing of it in the dialogue, the transcript and the cache. Ctrl-C stops it."""
    if not argument:
        raise UsageError("what is to be asked? /probe TEXT")
    shown = Shown()
    record = None
    with (
        quiet_keyboard(),
        session.interrupts.catching(session.view.stopping) as cancelled,
        session.conversation.aside(),
        contextlib.suppress(KeyboardInterrupt),  # pressed twice while nothing asked for it
    ):
        record = session.generate(argument, lambda: shown.gone is not None or cancelled(), shown)
    if shown.gone is not None:
        raise NotShown(shown.gone) from shown.gone
    if record is None or (record.finish_reason == "cancelled" and not record.output_text):
        session.note("stopped before the answer began; nothing of it is kept")
        return
    session.note(turn_line(record), between_words=True)
    waiting = "; attached files wait for a message that is kept" if session.attachments else ""
    session.note(f"not kept: the dialogue is as it was{waiting}")
