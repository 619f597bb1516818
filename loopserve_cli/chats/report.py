"""The saved dialogues, shown: as a table, or as one JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopserve_cli.chats.listing import Saved, look, saved_files
from loopserve_cli.chats.search import Match, search
from loopserve_cli.errors import TranscriptError
from loopserve_cli.folders import transcripts_folder
from loopserve_cli.output import CleanConsole, output_console, print_document

# Columns of the screen below which the model is left out.
WITH_MODEL = 72
MODEL_WIDTH = 20
PADDING = 2
UNKNOWN = "n/a"
ROLES = {"system": "system prompt", "user": "you", "assistant": "answer"}

Row = tuple[Saved, list[Match]]


def run(words: Sequence[str], as_json: bool) -> int:
    """Print the dialogues that hold all words, or all there are, the newest first; returns 0 also for none."""
    words = [word for word in words if word.strip()]
    rows: list[Row] = []
    broken: list[TranscriptError] = []
    for path in saved_files():
        try:
            matches = search(path, words) if words else []
            if matches or not words:
                rows.append((look(path), matches))
        except TranscriptError as error:
            broken.append(error)
    if as_json:
        print_document(document(words, rows, broken))
        return 0
    show(output_console(), CleanConsole(stderr=True), words, rows, broken)
    return 0


def document(words: Sequence[str], rows: Sequence[Row], broken: Sequence[TranscriptError]) -> dict[str, Any]:
    """Everything found, as JSON types; unknown is null."""
    return {
        "command": "chats",
        "folder": str(transcripts_folder()),
        "words": list(words),
        "chats": [as_row(*row) for row in rows],
        "broken": [str(error) for error in broken],
    }


def as_row(saved: Saved, matches: Sequence[Match]) -> dict[str, Any]:
    """One dialogue as JSON types."""
    return {
        "name": saved.name,
        "file": str(saved.path),
        "updated": saved.updated.astimezone().isoformat(timespec="seconds"),
        "created": saved.header.created,
        "model": saved.header.model,
        "profile": saved.header.profile,
        "turns": saved.turns,
        "first": saved.first,
        "in_use": saved.in_use,
        "matches": [{"turn": match.turn, "role": match.role, "text": match.text} for match in matches],
    }


def show(
    out: Console, err: Console, words: Sequence[str], rows: Sequence[Row], broken: Sequence[TranscriptError]
) -> None:
    """The dialogues on `out`; what is wrong, and how to go on, on `err`."""
    if rows and not words:
        out.print(table([saved for saved, _ in rows], out.width))
    for row in rows if words else ():
        for line in hits(*row, words):
            out.print(line, no_wrap=True, overflow="ellipsis")
    for error in broken:
        err.print(Text(f"not a dialogue: {error}", style="yellow"), soft_wrap=True)
    free = next((saved for saved, _ in rows if not saved.in_use), None)
    if free is not None:
        hint = f"go on with: loopserve chat --resume {free.name}"
    elif rows:
        return
    elif words:
        hint = f"no saved dialogue holds {' and '.join(words)}"
    else:
        hint = f"there is no saved dialogue in {transcripts_folder()} yet; `loopserve chat` begins one"
    err.print(Text(hint, style="dim"), soft_wrap=True)


def table(rows: Sequence[Saved], width: int) -> Table:
    """A line per dialogue, in so many columns of the screen."""
    shown = Table(box=None, pad_edge=False, padding=(0, PADDING, 0, 0))
    columns = {
        "name": [saved.name for saved in rows],
        "last said": [last_said(saved) for saved in rows],
        "turns": [f"{saved.turns:,}" for saved in rows],
        "model": [short(saved.header.model or UNKNOWN, MODEL_WIDTH) for saved in rows],
    }
    if width < WITH_MODEL:
        del columns["model"]
    for title, cells in columns.items():
        widest = max(map(len, (title, *cells)))
        width -= widest + PADDING
        shown.add_column(title, no_wrap=True, min_width=widest, justify="right" if title == "turns" else "left")
    # It alone gives way: Rich would take from all of them alike.
    shown.add_column("first message", no_wrap=True, overflow="ellipsis", max_width=max(width, len("first")))
    for row in zip(*columns.values(), (saved.opening for saved in rows), strict=True):
        shown.add_row(*row)
    return shown


def hits(saved: Saved, matches: Sequence[Match], words: Sequence[str]) -> Iterator[Text]:
    """A dialogue that was searched for, and under it where the words stand."""
    yield Text(f"{saved.name}  {last_said(saved)}  {length(saved)}, {saved.header.model or UNKNOWN}")
    for match in matches:
        place = f"turn {match.turn}, {ROLES[match.role]}" if match.turn else ROLES[match.role]
        line = Text(f"  {place}: {match.text}")
        line.highlight_words(words, "bold", case_sensitive=False)
        yield line


def length(saved: Saved) -> str:
    """How many turns it has."""
    return f"{saved.turns:,} {'turn' if saved.turns == 1 else 'turns'}"


def last_said(saved: Saved) -> str:
    """When, or that a chat has it open."""
    return "in use" if saved.in_use else moment(saved.updated)


def short(text: str, width: int) -> str:
    """The text, or its beginning and dots."""
    return text if len(text) <= width else text[: width - 1] + "…"


def moment(when: datetime, now: datetime | None = None) -> str:
    """A time as short as it can be: the clock today, the day this year, else the whole date."""
    now = now or datetime.now()
    if when.date() == now.date():
        return f"{when:%H:%M}"
    return f"{when:%d %b %H:%M}" if when.year == now.year else f"{when:%Y-%m-%d}"
