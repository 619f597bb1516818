"""Commands that only show something."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Group
from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.figures import UNKNOWN, count, duration, kv_bytes, memory, rate, share, size
from loopserve_cli.chat.room import attached, length_of
from loopserve_cli.chat.session import Session
from loopserve_cli.conversation import common_prefix
from loopserve_cli.stats import TurnRecord


def stats(session: Session, argument: str) -> None:
    """All turns so far, also those that do not stand any more."""
    no_argument(argument, "/stats")
    if not session.records:
        session.data("no turn yet")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("turn", "new", "cached", "logical", "out", "TTFT", "prefill", "density", "decode", "memory", "KV"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("end")
    for record, standing in zip(session.records, session.standing(), strict=True):
        table.add_row(*_row(record, standing))
    session.data(table)
    if any(record.tokens_reasoning for record in session.records):
        session.data(Group(Text(), _thoughts(session.records)))


def _row(record: TurnRecord, standing: bool) -> list[str]:
    return [
        count(record.turn),
        count(record.tokens_new),
        count(record.tokens_cached),
        count(record.tokens_logical),
        count(record.tokens_output),
        duration(record.ttft_ms),
        rate(record.prefill_tokens_per_s),
        share(record.density),
        rate(record.decode_tokens_per_s),
        memory(record),
        size(kv_bytes(record)),
        (record.finish_reason or UNKNOWN) + ("" if standing else ", dropped"),
    ]


def _thoughts(records: list[TurnRecord]) -> Table:
    """Of every turn, how much was thought, and when its answer began."""
    table = Table(box=None, pad_edge=False)
    for name in ("turn", "thought", "first token", "answer after"):
        table.add_column(name, justify="right")
    for record in records:
        thought = (count(record.tokens_reasoning), duration(record.ttft_ms), duration(record.first_answer_ms))
        table.add_row(count(record.turn), *thought)
    return table


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
