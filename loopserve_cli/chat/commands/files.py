"""Commands that read and write files."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from loopserve_cli.bundled_files import TRANSCRIPTS
from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.bundled import located
from loopserve_cli.chat.commands.command import path_argument
from loopserve_cli.chat.kv_file import drop, feed, keep
from loopserve_cli.chat.paths import new_transcript
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues
from loopserve_cli.transcript.open_file import Stamp
from loopserve_cli.transcript.write import target_of

WITH_CACHE = "--kv"


def save(session: Session, argument: str) -> None:
    """Write a copy of the dialogue, with --kv the cache beside it; without FILE, beside the chat's own transcript."""
    name, cache = _with_cache(argument)
    own = session.autosave.path if session.autosave.begun else None
    path = own if own is not None and cache and not name else path_argument(name, "/save FILE [--kv]")
    if not any(m.role == "user" for m in session.conversation.messages):
        raise UsageError("there is nothing to save yet")
    if own is not None and _same(path, own):
        session.sync()
        if not cache:
            session.note(f"{path} is this chat's own transcript; it is saved after every step")
    else:
        _save_copy(session, path, cache)
    if cache:
        keep(session, path)


def save_choices(_session: Session, before: list[str]) -> list[str]:
    """What may follow a file's name."""
    return [] if WITH_CACHE in before else [WITH_CACHE]


def _with_cache(argument: str) -> tuple[str, bool]:
    """The file's name, perhaps empty, and whether --kv stands before or after it."""
    name = argument.strip()
    if name == WITH_CACHE:
        return "", True
    for rest in (name.removesuffix(f" {WITH_CACHE}"), name.removeprefix(f"{WITH_CACHE} ")):
        if rest != name:
            return rest.strip(), True
    return name, False


def _save_copy(session: Session, path: Path, cache: bool) -> None:
    """Write a copy of the dialogue, all of it or nothing; one that this chat wrote before is replaced."""
    messages = session.conversation.messages
    target = target_of(path)
    stamp = session.copies.get(target)
    again = stamp is not None and path.exists()
    if again and Stamp.of(path.stat()) != stamp:
        raise UsageError(f"{path} was changed since this chat wrote it; give another name")
    if path.exists() and not again:
        raise UsageError(f"{path} exists already; give another name")
    writer = TranscriptWriter(path, header(session), overwrite=again, messages=messages)
    session.copies[target] = writer.stamp
    writer.close()
    session.note(f"saved {len(messages)} messages to {path}; go on with it: loopserve chat --resume {path}")
    if again and not cache:
        drop(session, path)


def load_choices(_session: Session, before: list[str]) -> list[str]:
    """The bundled dialogues."""
    return [] if before else list(TRANSCRIPTS)


def load(session: Session, argument: str) -> None:
    """Go on with a dialogue from a file; this one stays in its own transcript."""
    path = path_argument(argument, "/load FILE")
    with session.err.status(Text(f"reading {path}")):
        dialogues = read_dialogues(located(path), session.warn)
    messages = list(dialogues[0].messages)
    roles = [m.role for m in messages]
    if "assistant" not in roles and roles.count("user") > 1:
        raise UsageError(f"{path}: has no recorded answers; run it with loopserve replay {path}")
    if len(dialogues) > 1:
        session.note(f"{path} holds {len(dialogues)} dialogues; this is the first, {dialogues[0].id}")
    before = session.autosave
    if before.problem is not None:
        session.sync()  # a last chance for what is not on the disk yet
    session.conversation.begin(dialogues[0].date, dialogues[0].tools)
    begin_with(session, messages)
    if before.path is not None:
        before.close()
        session.autosave = Autosave.new(new_transcript(), header(session), session.warn)
        session.sync()
        kept = f"; the dialogue before is in {before.path}" if before.begun and before.problem is None else ""
        session.note(f"saving to {session.autosave.path}{kept}")
        if before.problem is not None:
            session.warn(f"the dialogue before is not saved: {before.problem}")
    session.note(f"loaded {len(messages)} messages")
    feed(session, path)


def header(session: Session) -> Header:
    """A transcript's first line: with what the chat is held now."""
    conversation = session.conversation
    return Header(
        conversation.engine.model_name,
        conversation.engine.profile.name,
        id=conversation.id,
        date=conversation.date,
        tools=conversation.tools,
    )


def begin_with(session: Session, messages: list[Message]) -> None:
    """Make `messages` the dialogue; a last message without an answer waits for /retry."""
    unanswered = messages[-1].content if messages and messages[-1].role == "user" else None
    session.conversation.load(messages if unanswered is None else messages[:-1])
    session.unanswered = unanswered
    session.attachments = []
    session.records += [m.record for m in messages if m.record is not None]


def _same(left: Path, right: Path) -> bool:
    return target_of(left) == target_of(right)
