"""The wide sizes: the strip with the last turns under it, and a column of details at its right."""

from __future__ import annotations

from loopserve_cli.chat.dashboard.figures import Figures
from loopserve_cli.chat.dashboard.history import sparks, table
from loopserve_cli.chat.dashboard.line import DIM, VALUE, Line, Marks, beside, sized, value
from loopserve_cli.chat.dashboard.strip import strip
from loopserve_cli.chat.figures import UNKNOWN, count, duration, per_token, share, short, size
from loopserve_cli.stats import TurnRecord, percentile

RIGHT = 42
NAME = 10
LEAST_TURNS = 5
MOST_TURNS = 14


def wide(figures: Figures, columns: int, marks: Marks, more: bool) -> list[Line]:
    """Strip, turns and details; with `more` room a longer history, and how it went."""
    left_columns = columns - RIGHT - 2
    right = details(figures, RIGHT)
    left = strip(figures, left_columns - 1, marks)
    past = figures.dialogue.past
    if more:
        left += [(), *sparks(figures, left_columns - 1, marks)] if len(past) > 1 else []
    rows = MOST_TURNS if more else max(LEAST_TURNS, len(right) - len(left) - 1)
    turns = table(past, left_columns - 1, rows)
    return beside([*left, *([()] if turns else []), *turns], right, left_columns, marks.side)


def details(figures: Figures, columns: int) -> list[Line]:
    """Names and figures, one below the other."""
    now, gauges = figures.now, figures.dialogue.gauges
    rows = [
        ("model", figures.dialogue.model),
        ("profile", figures.dialogue.profile),
        ("tokens", f"{short(now.tokens_new)} new, {short(now.tokens_cached)} kept, {count(now.tokens_output)} out"),
        ("choosing", f"{duration(now.select_ms)}, prefill {duration(now.prefill_ms)}"),
        ("density", f"{share(now.density)}, covers {share(now.coverage)}"),
        ("lines", f"{count(now.lines_vertical)} vertical, {count(now.lines_slash)} slash"),
        ("gaps", gaps(now)),
        ("keys", f"reads {count(now.keys_read)} of {count(now.keys_stored)}"),
        ("device", _allocated(now.kv_used_device_bytes, now.kv_store_device_bytes)),
        ("host", _allocated(now.kv_used_host_bytes, now.kv_store_host_bytes)),
        ("working", f"set {size(now.working_set_bytes)}, chosen again {times(now.reselections)}"),
    ]
    if now.allocated_device_bytes is not None:
        rows += [
            ("GPU", f"{size(now.allocated_device_bytes)} of {size(gauges.total_device_bytes)}"),
            ("reserved", f"{size(now.reserved_device_bytes)}, busy {share(gauges.gpu_busy)}"),
        ]
    return [_pair(name, text, columns) for name, text in rows]


def gaps(now: TurnRecord) -> str:
    """The time between tokens: the middle one, and that of one in a hundred once there are so many."""
    ordered = sorted(now.itl_ms)
    if not ordered:
        return f"p50 {UNKNOWN}, p99 {UNKNOWN}"
    worst = percentile(ordered, 0.99) if len(ordered) >= 100 else None
    return f"p50 {per_token(percentile(ordered, 0.5))}, p99 {per_token(worst)}"


def times(number: int | None) -> str:
    """How often."""
    return UNKNOWN if number is None else f"{count(number)}x"


def _allocated(used: int | None, allocated: int | None) -> str:
    return f"{size(used)} used of {size(allocated)}"


def _pair(name: str, text: str, columns: int) -> Line:
    line: Line = ((DIM, name.ljust(NAME)), *value(text))
    return sized(line, columns - 1) if len(text) + NAME > columns - 1 else (line[0], (VALUE, line[1][1]))
