"""The cache that is kept beside a transcript, and loaded when the dialogue goes on."""

from __future__ import annotations

import time
from pathlib import Path

from rich.text import Text

from loopserve_cli.chat.figures import count, duration, size
from loopserve_cli.chat.interrupts import quiet_keyboard
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.transcript.write import write_error

# What the last turn left to the next one: an answer's last token, and what the template writes after it. Fed with the
# next message, as if the chat had never stopped.
ANSWERS_END = 8


def beside(transcript: Path) -> Path:
    """Where a transcript's cache is: dialogue.kv.safetensors for dialogue.jsonl."""
    return transcript.with_suffix(".kv.safetensors")


def keep(session: Session, transcript: Path) -> None:
    """Write what the engine holds; raises LoopserveError if that fails, and leaves an older file as it was."""
    path = beside(transcript)
    engine = session.conversation.engine
    left_out = 0 if engine.freezes else session.conversation.settle()  # a tier that freezes refuses below
    if left_out and not engine.tokens:
        raise UsageError("the cache holds nothing of the dialogue as it is now; ask something first")
    began = time.perf_counter()
    with quiet_keyboard(), session.err.status(Text(f"writing {path}")):
        try:
            written = engine.save(path)
        except OSError as error:
            raise write_error(path, error) from None
    took = duration((time.perf_counter() - began) * 1e3)
    changed = f"; {count(left_out)} more were of the dialogue before it changed" if left_out > ANSWERS_END else ""
    session.note(f"kept the cache of {count(len(engine.tokens))} tokens in {path} ({size(written)}, {took}){changed}")


def feed(session: Session, transcript: Path) -> None:
    """Bring the history into the cache: from the file beside the transcript as far as it fits, the rest by prefill."""
    path = beside(transcript)
    loaded = False
    if session.conversation.turns and path.exists():
        try:
            loaded = _load(session, path)
        except LoopserveError as error:
            session.warn(f"{error}; prefilling the history instead")
    if not loaded or session.conversation.missing > ANSWERS_END:
        session.feed()


def _load(session: Session, path: Path) -> bool:
    """Take what the file has; whether that is more than the engine held."""
    began = time.perf_counter()
    with quiet_keyboard(), session.err.status(Text(f"loading {path}")):
        tokens = session.conversation.take_up(path)
    if not tokens:
        return False
    took = duration((time.perf_counter() - began) * 1e3)
    others = session.conversation.engine.made_otherwise
    under = f"; computed under profile {', '.join(others)}" if others else ""
    session.note(f"{count(tokens)} tokens of history loaded from {path} in {took}{under}")
    return True
