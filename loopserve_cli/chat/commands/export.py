"""`/export`: the dialogue as Markdown."""

from __future__ import annotations

from loopserve_cli.chat.as_markdown import as_markdown
from loopserve_cli.chat.commands.command import path_argument
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.transcript.write import PRIVATE, write_whole

USAGE = "/export FILE.md [--overwrite]"
OVERWRITE = "--overwrite"
SUFFIXES = (".md", ".markdown")


def export(session: Session, argument: str) -> None:
    """Write the dialogue as Markdown, all of it or nothing; over a file only when told."""
    overwrite = OVERWRITE in argument.split()
    path = path_argument(without_flag(argument), USAGE)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a Markdown file's name ends in .md; /save FILE keeps a dialogue to go on with")
    conversation = session.conversation
    waiting = [Message("user", session.unanswered)] if session.unanswered is not None else []
    messages = [*conversation.messages, *waiting]
    if not any(message.role == "user" for message in messages):
        raise UsageError("there is nothing to export yet")
    text = as_markdown(messages, session.model, conversation.engine.profile.name, conversation.date)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give a file name")
    there = path.exists()
    if there and not overwrite:
        raise UsageError(f"{path} exists already; give another name, or add {OVERWRITE}")
    write_whole(path, text.encode("utf-8", "replace"), overwrite, PRIVATE)
    session.note(f"wrote {len(messages)} messages to {path}" + (", over what was there" if there else ""))


def without_flag(argument: str) -> str:
    """The file's name, whether --overwrite stands before or after it."""
    text = argument.strip()
    return text.removeprefix(f"{OVERWRITE} ").removesuffix(OVERWRITE).strip() if OVERWRITE in text.split() else text


def export_choices(_session: Session, before: list[str]) -> list[str]:
    """What may follow a file's name."""
    return [OVERWRITE] if before and OVERWRITE not in before else []
