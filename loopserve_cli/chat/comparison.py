"""Two answers to one message side by side: what each cost, and where they part."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.columns import Column, table_of
from loopserve_cli.chat.figures import UNKNOWN, count, duration, kv_used, rate, share, size
from loopserve_cli.messages import Message
from loopserve_cli.printable import printable
from loopserve_cli.stats import TurnRecord

# Stands where the answers part, so that it can be seen without colour too.
MARK = "[≠]"
COLOURS = ("yellow", "cyan")
# Characters that are shown of what both answers say before they part.
BEFORE = 120
# Terminals narrower than this show one answer under the other.
SIDE_BY_SIDE = 50
GAP = 2


def comparison(left: Message, right: Message, width: int) -> RenderableType:
    """Both turns' figures, then both answers, for a terminal of so many columns. A record may be unknown."""
    records = [message.record or TurnRecord() for message in (left, right)]
    names = [record.profile or UNKNOWN for record in records]
    return Group(figures(records[0], records[1], names), Text(), *answers(left.content, right.content, names, width))


def figures(left: TurnRecord, right: TurnRecord, names: list[str]) -> Table:
    """A row per measure, as each turn's record has it; for times also how often the first goes into the second."""
    rows = [(name, shown(left), shown(right), ratio) for name, shown, ratio in _measures(left, right)]
    return table_of(
        [
            Column("", [row[0] for row in rows], left=True),
            Column(_lines(names[0]), [row[1] for row in rows]),
            Column(_lines(names[1]), [row[2] for row in rows]),
            Column("", [row[3] for row in rows]),
        ]
    )


def _lines(name: str) -> str:
    return name.replace("+", "\n+")


def _measures(left: TurnRecord, right: TurnRecord) -> list[tuple[str, Callable[[TurnRecord], str], str]]:
    gaps = [statistics.median(one.itl_ms) if one.itl_ms else None for one in (left, right)]
    known: list[tuple[str, Callable[[TurnRecord], str], str]] = [
        ("TTFT", lambda one: duration(one.ttft_ms), times(left.ttft_ms, right.ttft_ms)),
        ("of it prefill", lambda one: duration(one.prefill_ms), times(left.prefill_ms, right.prefill_ms)),
        ("TPOT", lambda one: milliseconds(one.tpot_ms), times(left.tpot_ms, right.tpot_ms)),
        ("gap, median", lambda one: milliseconds(_median(one)), times(*gaps)),
        ("decode", lambda one: rate(one.decode_tokens_per_s), ""),
        ("new tokens", lambda one: count(one.tokens_new), ""),
        ("answer's tokens", lambda one: count(one.tokens_output), ""),
        ("density", lambda one: share(one.density), ""),
        ("keys read", lambda one: count(one.keys_read), ""),
        ("of keys stored", lambda one: count(one.keys_stored), ""),
        ("KV used", lambda one: size(kv_used(one)), ""),
        ("working set", lambda one: size(one.working_set_bytes), ""),
    ]
    if left.peak_device_bytes is not None or right.peak_device_bytes is not None:
        known.append(("peak memory", lambda one: size(one.peak_device_bytes), ""))
    return [*known, ("end", lambda one: one.finish_reason or UNKNOWN, "")]


def _median(record: TurnRecord) -> float | None:
    return statistics.median(record.itl_ms) if record.itl_ms else None


def milliseconds(value: float | None) -> str:
    """A short time, with two digits behind the point."""
    return UNKNOWN if value is None else f"{value:.2f} ms"


def times(left: float | None, right: float | None) -> str:
    """How many times as long the second is, as "2.5x"; empty where that is unknown."""
    return f"{right / left:.2f}x" if left and right else ""


def answers(left: str, right: str, names: list[str], width: int) -> list[RenderableType]:
    """A line that says where they part, then both: beside each other, or one under the other on a narrow terminal."""
    at = parting(left, right)
    if at is None:
        return [Text(f"the answers are the same, word for word ({_words(left)})"), Text(printable(shortened(left)))]
    same = left[:at]
    line = Text(f"the answers part at {MARK}, after {_words(same)} of {_words(left)} and {_words(right)}")
    texts = [marked(text, at, colour) for text, colour in zip((left, right), COLOURS, strict=True)]
    if width < SIDE_BY_SIDE:
        return [line, *(part for name, text in zip(names, texts, strict=True) for part in (Text(name), text))]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), expand=False)
    for name in names:
        table.add_column(_lines(name), width=(width - 2 * GAP) // 2, overflow="fold")
    table.add_row(*texts)
    return [line, table]


def parting(left: str, right: str) -> int | None:
    """Where two texts begin to differ, at the beginning of a word; None where they do not."""
    if left == right:
        return None
    same = len(os.path.commonprefix([left, right]))
    if all(not text[same : same + 1].strip() for text in (left, right)):
        return same  # both words end here
    while same and not left[same - 1].isspace():
        same -= 1
    return same


def marked(text: str, at: int, colour: str) -> Text:
    """The text with its first `at` characters dim, the mark, and the rest coloured."""
    rest = text[at:].lstrip(" ")
    shown = Text().append(printable(shortened(text[:at])), style="dim")
    shown.append(MARK, style=f"bold {colour}")
    return shown.append(printable(f" {rest}" if rest else " (ends)"), style=colour)


def shortened(text: str) -> str:
    """The end of a long text, from the beginning of a word on."""
    if len(text) <= BEFORE:
        return text
    cut = text.find(" ", len(text) - BEFORE) + 1
    return "… " + text[cut or len(text) - BEFORE :]


def _words(text: str) -> str:
    number = len(text.split())
    return f"{count(number)} word{'' if number == 1 else 's'}"
