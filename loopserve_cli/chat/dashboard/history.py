"""The turns before this one: a table of the newest, and how TTFT and the cache went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loopserve_cli.chat.dashboard.figures import Figures
from loopserve_cli.chat.dashboard.line import DIM, VALUE, Line, Marks, plain, row, value
from loopserve_cli.chat.dashboard.spark import spark
from loopserve_cli.chat.figures import count, duration, ending, kv_used, rate, share, short, size
from loopserve_cli.printable import printable_line
from loopserve_cli.stats import TurnRecord

Column = tuple[str, int, Callable[[TurnRecord], str]]
# By importance: where there is no room the last ones go.
COLUMNS: tuple[Column, ...] = (
    ("turn", 5, lambda r: count(r.turn)),
    ("TTFT", 9, lambda r: duration(r.ttft_ms)),
    ("new", 7, lambda r: short(r.tokens_new)),
    ("KV used", 10, lambda r: size(kv_used(r))),
    ("density", 8, lambda r: share(r.density)),
    ("out", 6, lambda r: count(r.tokens_output)),
    ("decode", 12, lambda r: rate(r.decode_tokens_per_s)),
    ("kept", 7, lambda r: short(r.tokens_cached)),
    ("read", 8, lambda r: short(r.keys_read)),
    ("choosing", 9, lambda r: duration(r.select_ms)),
)
PROFILE = 16
ENDING = 14


def table(past: Sequence[TurnRecord], columns: int, rows: int) -> list[Line]:
    """The newest turns with their profile, the newest last, under a line of names; empty without a turn."""
    newest = list(past)[-max(0, rows - 1) :] if rows > 1 else []
    if not newest:
        return []
    left = columns - 1 - PROFILE
    taken: list[Column] = []
    for column in COLUMNS:
        if column[1] + 1 > left:
            break
        taken.append(column)
        left -= column[1] + 1
    ends = left > ENDING
    head = " " + " ".join(name.rjust(size_) for name, size_, _ in taken) + "  profile".ljust(PROFILE)
    lines: list[Line] = [((DIM, head + (" ended" if ends else "")),)]
    for record in newest:
        cells = " ".join(read(record).rjust(size_)[:size_] for _, size_, read in taken)
        profile = f"  {printable_line(record.profile or 'n/a')}"[:PROFILE].ljust(PROFILE)
        end = f" {ending(record) or 'stop'}" if ends else ""
        lines.append(((VALUE, f" {cells}"), (DIM, profile + end)))
    return lines


def sparks(figures: Figures, columns: int, marks: Marks) -> list[Line]:
    """TTFT and the cache's bytes, a column a turn, as far back as there is room."""
    past = figures.dialogue.past
    series = (
        ("TTFT", [r.ttft_ms for r in past], duration),
        ("KV used", [None if (used := kv_used(r)) is None else float(used) for r in past], size),
    )
    lines = []
    for name, values, written in series:
        known = [one for one in values if one is not None]
        if len(known) < 2:
            continue
        said = f"{written(min(known))} {marks.to} {written(max(known))}"
        room = columns - 10 - len(said) - 2
        lines.append(row(name, [spark(known, room, marks), value(said, style=DIM)], columns))
    return [line for line in lines if plain(line)]
