"""Which file --resume means: the one given, one of the state folder by its name, or the newest there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from loopserve_cli.chats.listing import Saved, named, newest
from loopserve_cli.chats.report import length, moment, short
from loopserve_cli.config import ChatOptions

# Characters of the first message: enough to know it by, and all in one line of a screen.
OPENING = 24


def resolved(options: ChatOptions, note: Callable[[str], None]) -> ChatOptions:
    """The options with the file that is gone on with; `note` is told which the newest is.

    Raises TranscriptError where there is none yet, and where the newest is damaged.
    """
    if options.resume_newest:
        found = newest()
        note(f"going on with {told(found)}")
        return replace(options, resume=found.path, resume_newest=False)
    if options.resume is not None and not os.path.lexists(options.resume):
        return replace(options, resume=named(str(options.resume)) or options.resume)
    return options


def told(saved: Saved) -> str:
    """A dialogue in a line: its name, when it was last said something in, how long it is, and how it begins."""
    return f"{saved.name} ({moment(saved.updated)}, {length(saved)}): {short(saved.opening, OPENING)}"
