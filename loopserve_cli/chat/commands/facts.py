"""`/show`: what one talks with, and where it is kept."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.figures import count
from loopserve_cli.chat.session import Session

TIERS = {
    "device": "keys and values stay on the device",
    "host": "the history stays in the host's memory, and is streamed layer by layer",
    "evict": "of finished turns only what the keep policy chose stays",
}


def show_chat(session: Session, argument: str) -> None:
    """The chat's facts, a line each."""
    no_argument(argument, "/show")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in facts(session):
        table.add_row(Text(name), Text(text))
    session.data(table)


def facts(session: Session) -> list[tuple[str, str]]:
    """Every fact with its name."""
    conversation, engine = session.conversation, session.conversation.engine
    quant = getattr(engine, "quant", None)
    tier = engine.profile.retain["tier"]
    return [
        ("model", session.model),
        ("device", engine.device),
        ("dtype", engine.dtype + (f", weights in {quant}" if quant else "")),
        ("template", conversation.template.about),
        ("context", context(session)),
        ("profile", f"{engine.profile.name}: {engine.profile.description}"),
        ("tier", f"{tier}: {TIERS[tier]}"),
        ("view", session.view.name),
        ("dialogue", f"{turns(session)}, began {began(session)}"),
        ("transcript", transcript(session)),
    ]


def context(session: Session) -> str:
    """How much of the context is held."""
    engine = session.conversation.engine
    held = len(engine.tokens)
    if engine.context_limit is None:
        return f"{count(held)} tokens held, no limit known"
    return f"{count(held)} of {count(engine.context_limit)} tokens held ({held / engine.context_limit:.0%})"


def turns(session: Session) -> str:
    """How many turns the dialogue has."""
    number = session.conversation.turns
    return f"{count(number)} turn{'' if number == 1 else 's'}"


def began(session: Session) -> str:
    """When the dialogue began, to the minute: the date that its template writes."""
    return session.conversation.date.replace("T", " ")[:16]


def transcript(session: Session) -> str:
    """Where the dialogue is on the disk, or why it is not."""
    autosave = session.autosave
    if autosave.problem is not None:
        return f"not saved: {autosave.problem}"
    if autosave.path is None:
        return "none: this chat is not saved"
    return str(autosave.path) + ("" if autosave.begun else " (from the first message on)")
