"""Where a chat keeps its files: the user's state folder."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

from loopserve_cli.folders import state_folder, transcripts_folder

__all__ = ["history_file", "new_transcript", "numbered", "transcripts_folder"]


def history_file() -> Path:
    """What was typed before."""
    return state_folder() / "history"


def new_transcript(now: datetime | None = None) -> Path:
    """A file name for a chat that begins `now`; it may be taken by when the file is made, so that chooses again."""
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    return next(path for path in numbered(transcripts_folder() / f"{stamp}.jsonl") if not path.exists())


def numbered(path: Path) -> Iterator[Path]:
    """The name itself, then as many others as are needed: talk.jsonl, talk-2.jsonl, talk-3.jsonl."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
