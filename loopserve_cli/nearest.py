"""What a mistyped name was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

# Of difflib's measure of likeness, 0 to 1: one letter wrong in three of four is a slip, half of them another name.
ALIKE = 0.7


def nearest(name: str, known: Iterable[str], alike: float = ALIKE) -> str | None:
    """The known name that is most like this one, in any case of letters; None where none is."""
    folded = {one.casefold(): one for one in known}
    near = get_close_matches(name.casefold(), list(folded), n=1, cutoff=alike)
    return folded[near[0]] if near else None


def hint(name: str, known: Iterable[str]) -> str:
    """What to put behind "unknown NAME; known: ...": the nearest name as a question, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near is not None else ""


def hint_file(path: Path) -> str:
    """As `hint`, for a file that is not there: the nearest of its kind in its folder, whose suffix may be missing."""
    try:
        there = {one.stem: one for one in sorted(path.parent.iterdir()) if path.suffix in ("", one.suffix)}
    except (OSError, ValueError):
        return ""
    near = nearest(path.stem, there)
    return f"; did you mean {there[near]}?" if near is not None else ""
