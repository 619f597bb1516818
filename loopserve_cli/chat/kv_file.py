"""The cache that is kept beside a transcript, and loaded when the dialogue goes on."""

from __future__ import annotations

import glob
import time
from pathlib import Path

from loopserve_cli.chat.figures import count, duration, size
from loopserve_cli.chat.interrupts import quiet_keyboard
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.wait_bar import WaitBar, sizes, told_between_tensors
from loopserve_cli.errors import ContextLimitError, LoopserveError, NumbersError, UsageError
from loopserve_cli.transcript.write import write_error

# What the last turn left to the next one: an answer's last token, and what the template writes after it. Fed with the
# next message, as if the chat had never stopped.
ANSWERS_END = 8


ENDING = ".kv.safetensors"
# In the names of the caches of transcripts that are not called .jsonl, so that no two share one.
OTHER = ".transcript"


def beside(transcript: Path) -> Path:
    """Where a transcript's cache is: talk.kv.safetensors for talk.jsonl, talk.txt.transcript.kv.safetensors else."""
    stem = transcript.name.removesuffix(".jsonl")
    plain = stem not in ("", transcript.name) and not stem.endswith(OTHER)
    return transcript.with_name((stem if plain else transcript.name + OTHER) + ENDING)


def found(session: Session, transcript: Path) -> Path:
    """Its cache, or the one under the name of earlier versions, where the ending of the transcript did not count."""
    path, old = beside(transcript), transcript.with_suffix(ENDING)
    if path.exists() or path == old or not old.exists():
        return path
    others = [one for one in transcript.parent.glob(glob.escape(transcript.stem) + "*") if one != transcript]
    sharing = [one for one in others if one != old and one.with_suffix(ENDING) == old]
    if not sharing:
        return old
    session.note(f"{old} may be the cache of {sharing[0]}, so it is not loaded")
    return path


def drop(session: Session, transcript: Path) -> None:
    """Remove the cache beside a copy that was written anew without one: it is of what was said before."""
    path = beside(transcript)
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        session.warn(f"{path} is of what was said before, but stays: {error.strerror}")
        return
    session.note(f"removed {path}, which is of what was said before; add --kv to keep the cache of now")


def keep(session: Session, transcript: Path) -> None:
    """Write what the engine holds; raises LoopserveError if that fails, and leaves an older file as it was."""
    path = beside(transcript)
    engine = session.conversation.engine
    left_out = 0 if engine.freezes else session.conversation.settle()  # a tier that freezes refuses below
    if left_out and not engine.tokens:
        raise UsageError("the cache holds nothing of the dialogue as it is now; ask something first")
    began = time.perf_counter()
    bar = WaitBar(session.err, "writing cache", sizes, disable=session.plain)
    with quiet_keyboard(), bar, told_between_tensors(engine, bar.show):
        try:
            written = engine.save(path)
        except OSError as error:
            raise write_error(path, error) from None
    took = duration((time.perf_counter() - began) * 1e3)
    changed = f"; {count(left_out)} more were of the dialogue before it changed" if left_out > ANSWERS_END else ""
    session.note(f"kept the cache of {count(len(engine.tokens))} tokens in {path} ({size(written)}, {took}){changed}")


def feed(session: Session, transcript: Path) -> None:
    """Bring the history into the cache, or say in one line why it is not: the chat goes on, to be shortened."""
    try:
        _feed(session, transcript)
    except ContextLimitError as error:
        session.warn(f"the history is not prefilled: {error}; or use a larger --context, or another model")
    except NumbersError as error:
        session.warn(f"the history is not prefilled: {error}")


def _feed(session: Session, transcript: Path) -> None:
    """From the file beside the transcript as far as it fits, the rest by prefill."""
    path = found(session, transcript)
    loaded = False
    if session.conversation.turns and path.exists():
        try:
            loaded = _load(session, path)
        except ContextLimitError:
            raise
        except LoopserveError as error:
            session.warn(f"{error}; prefilling the history instead")
    if not loaded or session.conversation.missing > ANSWERS_END:
        session.feed()


def _load(session: Session, path: Path) -> bool:
    """Take what the file has; whether that is more than the engine held."""
    began = time.perf_counter()
    bar = WaitBar(session.err, "reading cache", sizes, disable=session.plain)
    with quiet_keyboard(), bar, told_between_tensors(session.conversation.engine, bar.show):
        tokens = session.conversation.take_up(path)
    if not tokens:
        return False
    took = duration((time.perf_counter() - began) * 1e3)
    others = session.conversation.engine.made_otherwise
    under = f"; computed under profile {', '.join(others)}" if others else ""
    session.note(f"{count(tokens)} tokens of history loaded from {path} in {took}{under}")
    return True
