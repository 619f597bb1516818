"""Lines of styled text, for whoever draws them: Rich while a turn runs, prompt_toolkit while it waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from loopserve_cli.printable import printable_line

DIM, VALUE, STRONG, BAR, WARN = "dim", "", "bold", "cyan", "yellow"

Piece = tuple[str, str]  # style, text
Line = tuple[Piece, ...]
LABEL = 8


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that bars, rules and sparklines are made of."""

    full: str
    empty: str
    rule: str
    dot: str
    side: str
    to: str
    more: str
    levels: str


BLOCKS = Marks("█", "░", "─", "·", "│", "–", "…", "▁▂▃▄▅▆▇█")
ASCII = Marks("#", ".", "-", "-", "|", "-", "...", "_.-~=+*#")


def marks_for(encoding: str) -> Marks:
    """Block characters where the encoding has them."""
    try:
        BLOCKS.levels.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(text for _, text in line)


def width(line: Line) -> int:
    """How many columns it takes."""
    return sum(cell_len(text) for _, text in line)


def sized(line: Line, columns: int) -> Line:
    """Exactly so many columns: cut, or filled with blanks."""
    found: list[Piece] = []
    left = columns
    for style, text in line:
        fits = text if cell_len(text) <= left else set_cell_size(text, left)
        found.append((style, fits))
        left -= cell_len(fits)
    return (*found, (VALUE, " " * left)) if left else tuple(found)


def value(text: str, columns: int = 0, style: str = VALUE) -> Line:
    """A cell, at least so wide; a name in it cannot act on the terminal."""
    return ((style, printable_line(text).ljust(columns)),)


def row(label: str, cells: Iterable[Line], columns: int) -> Line:
    """A label and what fits of the cells, the first of them always; a cell is whole or not there."""
    found: list[Piece] = [(DIM, " " + label.ljust(LABEL))]
    left = columns - LABEL - 1
    for number, cell in enumerate(cells):
        taken = width(cell) + (2 if number else 0)
        if not cell or (number and width(trimmed(cell)) + 2 > left):
            continue
        found += [(VALUE, "  ")] if number else []
        found += cell
        left -= taken
    return trimmed(sized(tuple(found), columns))


def trimmed(line: Line) -> Line:
    """Without the blanks at its end."""
    found = list(line)
    while found and not found[-1][1].rstrip(" "):
        found.pop()
    if found:
        found[-1] = (found[-1][0], found[-1][1].rstrip(" "))
    return tuple(found)


def beside(left: Sequence[Line], right: Sequence[Line], columns: int, side: str) -> list[Line]:
    """Two columns with a line between them; the left one is so wide."""
    height = max(len(left), len(right))
    filled = [*left, *[()] * (height - len(left))], [*right, *[()] * (height - len(right))]
    return [(*sized(one, columns), (DIM, f"{side} "), *other) for one, other in zip(*filled, strict=True)]
