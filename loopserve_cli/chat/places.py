"""Where a chat keeps its files: the user's state folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from platformdirs import user_state_path


def state_folder() -> Path:
    """The folder for history and transcripts; not created here."""
    return user_state_path("loopserve", appauthor=False)


def history_file() -> Path:
    """What was typed before."""
    return state_folder() / "history"


def new_transcript(now: datetime | None = None) -> Path:
    """A file name, not taken yet, for a chat that begins `now`."""
    folder = state_folder() / "transcripts"
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    path = folder / f"{stamp}.jsonl"
    number = 2
    while path.exists():
        path = folder / f"{stamp}-{number}.jsonl"
        number += 1
    return path
