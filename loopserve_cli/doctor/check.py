"""One finding of the doctor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 2**30

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found; `advice` says what to do. Only a "problem" keeps chat from running."""

    name: str
    status: Status
    found: str
    advice: str | None = None


def gib(size: int) -> str:
    """A size in GiB, to one decimal."""
    return f"{size / GIB:.1f} GiB"
