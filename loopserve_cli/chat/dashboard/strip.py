"""One line, or the strip of at most six: what fits every terminal."""

from __future__ import annotations

from loopserve_cli.chat.dashboard.figures import Figures
from loopserve_cli.chat.dashboard.line import DIM, STRONG, VALUE, WARN, Line, Marks, row, value, width
from loopserve_cli.chat.dashboard.spark import bar, spark
from loopserve_cli.chat.figures import (
    UNKNOWN,
    count,
    duration,
    kv_used,
    memory,
    per_token,
    rate,
    share,
    short,
    size,
    waiting,
)
from loopserve_cli.stats import TurnRecord

FULL_ENOUGH = 0.9
FIRST, SECOND, THIRD = 8, 13, 8
# Bars and sparklines: where there is room, and at least.
SPARK_COLUMNS, FILL_COLUMNS = 24, 12
LEAST_BAR = 8
SAID = {"prefill": "prefill", "answering": "answering", "thinking": "thinking", "idle": "idle"}


def one_line(figures: Figures, columns: int, marks: Marks) -> Line:
    """The most important figures, as many as fit."""
    now, dot = figures.now, f" {marks.dot} "
    context = f"{context_of(figures)} tokens"
    if figures.phase == "prefill":
        cells = [f"prefill {progress_of(figures)}", left_of(figures), context, rate(now.prefill_tokens_per_s)]
    else:
        cells = [f"TTFT {duration(now.ttft_ms)}", context, f"KV {size(kv_used(now))}", memory(now)]
        cells += [f"{count(now.tokens_output)} out", rate(now.decode_tokens_per_s)]
    if figures.stopping:
        cells.insert(0, "stopping")
    found = ""
    for cell in filter(None, cells):
        longer = f"{found}{dot}{cell}" if found else cell
        found = longer if len(longer) < columns else found
    return ((DIM, found),)


def title(figures: Figures, columns: int, marks: Marks) -> Line:
    """A rule with the turn at its left and what goes on at its right."""
    if figures.stopping:
        doing = "stopping"
    elif figures.phase == "idle":
        doing = f"idle {marks.dot} F2 hides"
    else:
        doing = f"{SAID[figures.phase]} {marks.dot} Ctrl-C stops"
    rule = marks.rule
    turn = f"turn {count(figures.turn)}" if figures.turn else "no turn yet"
    left: Line = ((DIM, f"{rule * 2} "), (STRONG, "loopserve"), (DIM, f" {marks.dot} {turn} "))
    right: Line = ((VALUE, f" {doing} "), (DIM, rule * 2))
    return (*left, (DIM, rule * max(0, columns - width(left) - width(right))), *right)


def strip(figures: Figures, columns: int, marks: Marks) -> list[Line]:
    """The rows under the title: what the phase does, then cache and memory."""
    now = figures.now
    rows = _prefilling(figures, columns, marks) if figures.phase == "prefill" else _answered(figures, columns, marks)
    rows.append(row("cache", cache_cells(figures, columns, marks), columns))
    rows.append(row("memory", memory_cells(figures), columns))
    if figures.phase != "prefill":
        rows.append(row("reads", reads_cells(now, marks), columns))
    return rows


def _prefilling(figures: Figures, columns: int, marks: Marks) -> list[Line]:
    now = figures.now
    done = now.tokens_new / figures.total if figures.total and now.tokens_new is not None else None
    cells = [
        bar(done, max(LEAST_BAR, min(columns // 2, columns - 55)), marks),
        value(progress_of(figures)),
        *(value(one) for one in (rate(now.prefill_tokens_per_s), left_of(figures)) if figures.total is not None),
    ]
    if figures.total is None:
        return [row("prefill", cells, columns)]
    before = [
        value(f"{short(now.tokens_cached)} in cache"),
        value(f"computing {share(now.density)} of the matrix"),
        value(f"choosing {duration(now.select_ms)}"),
        full_cell(figures),
    ]
    return [row("prefill", cells, columns), row("before", before, columns)]


def _answered(figures: Figures, columns: int, marks: Marks) -> list[Line]:
    now = figures.now
    times = [r.ttft_ms for r in figures.dialogue.past if r.ttft_ms is not None]
    times += [now.ttft_ms] if figures.phase != "idle" and now.ttft_ms is not None else []
    first = value(duration(now.ttft_ms), FIRST, STRONG)
    gain = "" if figures.gain is None else f"{figures.gain:.1f}x"
    room = max(SPARK_COLUMNS, columns - 80)
    over = spark(times, room, marks) if len(times) > 1 else ()
    ttft = [first, sized_cell(full_cell(figures), SECOND), value(gain, THIRD), over, range_of(times, marks)]
    token = [
        value(per_token(now.tpot_ms), FIRST),
        value(rate(now.decode_tokens_per_s), SECOND),
        value(f"{count(now.tokens_output)} out", THIRD),
        spark(now.itl_ms, room, marks) if len(now.itl_ms) > 1 else (),
    ]
    return [row("TTFT", ttft, columns), row("token", token, columns)]


def sized_cell(cell: Line, columns: int) -> Line:
    """A cell filled with blanks."""
    return (*cell, (VALUE, " " * max(0, columns - width(cell))))


def progress_of(figures: Figures) -> str:
    """Tokens done of those to do."""
    if figures.total is None:
        return "is about to begin"
    return f"{short(figures.now.tokens_new)}/{short(figures.total)} tok"


def left_of(figures: Figures) -> str:
    """The time left."""
    if figures.total is None:
        return ""
    return f"{UNKNOWN if figures.left_ms is None else waiting(figures.left_ms)} left"


def full_cell(figures: Figures) -> Line:
    """What full attention costs: measured, or estimated and marked so."""
    about = "" if figures.measured or figures.full_ms is None else "~"
    return value(f"full {about}{duration(figures.full_ms)}")


def range_of(times: list[float], marks: Marks) -> Line:
    """How many turns there were, and the least and the greatest of their times."""
    if len(times) < 2:
        return ()
    return value(f"{len(times)} turns, {duration(min(times))} {marks.to} {duration(max(times))}", style=DIM)


def context_of(figures: Figures) -> str:
    """Tokens in the cache of those it may hold."""
    used, limit = figures.tokens, figures.dialogue.context_limit
    return short(used) if not limit else f"{short(used)}/{short(limit)} ({used / limit:.0%})"


def cache_cells(figures: Figures, columns: int, marks: Marks) -> list[Line]:
    """Bytes that hold tokens, and how full the context is."""
    used, limit, fill = figures.tokens, figures.dialogue.context_limit, figures.fill
    tokens = value(f"{short(used)} tokens" if limit is None else f"{short(used)} of {short(limit)} tokens")
    if fill is None:
        return [value(f"{size(kv_used(figures.now))} used"), tokens]
    wide = FILL_COLUMNS if columns >= 70 else LEAST_BAR
    percent = value(f"{fill:.0%}", style=WARN if fill >= FULL_ENOUGH else VALUE)
    return [value(f"{size(kv_used(figures.now))} used"), tokens, (*bar(fill, wide, marks), (VALUE, " "), *percent)]


def memory_cells(figures: Figures) -> list[Line]:
    """Memory now, its peak in this turn, and how much there is; where the dialogue's keys and values are."""
    now, gauges = figures.now, figures.dialogue.gauges
    if now.allocated_device_bytes is not None:
        used = f"{size(now.allocated_device_bytes)}, peak {size(now.peak_device_bytes)}"
        of = gauges.total_device_bytes
    else:
        used, of = f"{size(now.rss_bytes)} resident", gauges.total_host_bytes
    return [value(f"{used}, of {size(of)}"), value(f"history on {figures.dialogue.tier}", style=DIM)]


def reads_cells(now: TurnRecord, marks: Marks) -> list[Line]:
    """What decoding reads of what is stored, and how often it chose."""
    if now.keys_stored is None:
        return [value(UNKNOWN)]
    if now.left_keys_out or now.keys_read is None:
        what = f"{count(now.keys_read)} of {short(now.keys_stored)} keys"
    else:
        what = f"all {short(now.keys_stored)} keys"
    again = f"chosen again {count(now.reselections)}x, {duration(now.reselect_ms)}" if now.left_keys_out else ""
    computed = f"density {share(now.density)}" if now.density is not None else ""
    return [value(what), *(value(one) for one in (again, computed) if one)]
