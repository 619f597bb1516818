"""/stats: what every turn measured, in as many columns as the terminal is wide."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from loopserve_cli.chat.columns import Column, fitting, left_out, table_of
from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.figures import UNKNOWN, count, duration, kv_used, memory, rate, share, size
from loopserve_cli.chat.session import Session
from loopserve_cli.stats import TurnRecord

DITTO = '"'


def stats(session: Session, argument: str) -> None:
    """All turns so far, those before a resume too, and those that do not stand any more."""
    no_argument(argument, "/stats")
    records = session.records
    if not records:
        session.data("no turn yet")
        return
    shown, hidden = fitting(turn_columns(records, session.standing(), session.out.width), session.out.width)
    session.data(table_of(shown))
    line = left_out(hidden)
    if line is not None:
        session.note(line, between_words=True)
    if any(record.tokens_reasoning for record in records):
        session.data(Group(Text(), table_of(thought_columns(records))))


def turn_columns(records: list[TurnRecord], standing: list[bool], width: int) -> list[Column]:
    """One row per turn. Which turn it was, under which profile, and its TTFT are always told."""
    ends = [
        (record.finish_reason or UNKNOWN) + ("" if stands else ", dropped")
        for record, stands in zip(records, standing, strict=True)
    ]
    return [
        Column("turn", [count(r.turn) for r in records]),
        Column("profile", profile_names([r.profile or UNKNOWN for r in records], width), left=True),
        Column("new", [count(r.tokens_new) for r in records], 2),
        Column("cached", [count(r.tokens_cached) for r in records], 4),
        Column("logical", [count(r.tokens_logical) for r in records], 10),
        Column("out", [count(r.tokens_output) for r in records], 5),
        Column("TTFT", [duration(r.ttft_ms) for r in records]),
        Column("prefill", [rate(r.prefill_tokens_per_s) for r in records], 9),
        Column("density", [share(r.density) for r in records], 7),
        Column("decode", [rate(r.decode_tokens_per_s) for r in records], 6),
        Column("keys read", [count(r.keys_read) for r in records], 3),
        Column("memory", [memory(r) for r in records], 11),
        Column("KV", [size(kv_used(r)) for r in records], 8),
        Column("end", ends, 1, left=True),
    ]


def profile_names(names: list[str], width: int) -> list[str]:
    """Profiles' names. Where one takes over a third of the width, each changed setting goes on a line of its own.

    Then a name that stands in the row above already is a ditto mark.
    """
    if max(map(len, names)) <= width // 3:
        return names
    same = [name == before for name, before in zip(names, [None, *names], strict=False)]
    return [DITTO if one else name.replace("+", "\n+") for name, one in zip(names, same, strict=True)]


def thought_columns(records: list[TurnRecord]) -> list[Column]:
    """Of every turn, how much was thought, and when its answer began."""
    return [
        Column("turn", [count(r.turn) for r in records]),
        Column("thought", [count(r.tokens_reasoning) for r in records]),
        Column("first token", [duration(r.ttft_ms) for r in records]),
        Column("answer after", [duration(r.first_answer_ms) for r in records]),
    ]
