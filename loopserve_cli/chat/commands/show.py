"""Commands that only show something."""

from __future__ import annotations

from dataclasses import replace

from rich.table import Table

from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.dashboard.source import switch
from loopserve_cli.chat.figures import UNKNOWN, count
from loopserve_cli.chat.room import attached, length_of
from loopserve_cli.chat.session import Session
from loopserve_cli.conversation import common_prefix


def dashboard(session: Session, argument: str) -> None:
    """Show the dashboard from now on, or hide it."""
    no_argument(argument, "/dashboard")
    session.note(switch(session))


def tokens(session: Session, argument: str) -> None:
    """How many tokens the dialogue has, by who wrote them."""
    no_argument(argument, "/tokens")
    conversation = session.conversation
    engine = conversation.engine
    table = Table("", "tokens", box=None, pad_edge=False, show_header=False)
    table.columns[1].justify = "right"
    least = conversation.template.least_said(conversation.messages, engine.context_limit)
    if engine.context_limit is not None and least > engine.context_limit:  # tokenising it would take long
        table.add_row("whole dialogue, at least", count(least))
        table.add_row("of it in the cache, at most", count(len(engine.tokens)))
        table.add_row("context limit", count(engine.context_limit))
        table.add_row("free", count(0))
        session.data(table)
        return
    ids = conversation.template.ids(conversation.messages, generation_prompt=False) if conversation.messages else []
    whole = len(ids)
    written = 0
    for role, name in (("system", "system prompt"), ("user", "your messages"), ("assistant", "answers")):
        texts = [m.content for m in conversation.messages if m.role == role and not m.forgotten]
        size_of = sum(conversation.template.count(role, text) for text in texts)
        written += size_of
        table.add_row(name, count(size_of))
    if any(m.reasoning for m in conversation.messages):
        silent = [replace(m, reasoning=None) for m in conversation.messages]
        thoughts = whole - len(conversation.template.ids(silent, generation_prompt=False))
        written += thoughts
        table.add_row("thoughts that stay", count(thoughts))
    table.add_row("template", count(whole - written))
    table.add_row("whole dialogue", count(whole))
    table.add_row("of it in the cache", count(common_prefix(engine.tokens, ids)))
    next_to_come = _waiting(session, table)
    limit = engine.context_limit
    table.add_row("context limit", count(limit))
    table.add_row("free", UNKNOWN if limit is None else count(max(0, limit - whole - next_to_come)))
    session.data(table)


def _waiting(session: Session, table: Table) -> int:
    """Rows for what is not of the dialogue yet, if there is any: attached files, a message without an answer."""
    tokens = 0
    if session.attachments:
        tokens = attached(session)
        table.add_row("attached files", count(tokens))
    if session.unanswered is not None:
        length = length_of(session, session.unanswered)
        table.add_row("message that waits" if length.exact else "message that waits, at least", count(length.tokens))
        tokens += length.tokens
    return tokens
