"""How a template wants the content of a message: as text, or as a list of parts.

Templates of models that see pictures loop over a message's parts. Over a text they loop letter by letter, find no part,
and write nothing. Which roles they want in parts is found by giving them messages that are easy to find again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loopserve_cli.errors import UsageError
from loopserve_cli.template.rows import Row

Render = Callable[[list[Row], bool], str]
ROLES = ("user", "assistant", "system")
SYSTEM, USER, ANSWER, LAST = MARKS = ("Qxsystem", "Qxfirst", "Qxanswer", "Qxlast")


@dataclass(frozen=True, slots=True)
class Shape:
    """The roles whose content is given as parts, and what the template wrote when it was asked for this."""

    parts: frozenset[str] = frozenset()
    written: tuple[str, ...] = ()

    def of(self, row: Row) -> Row:
        """The row as the template wants it; content that is parts already stays as it is."""
        if row["role"] not in self.parts or not isinstance(row["content"], str):
            return row
        return {**row, "content": [{"type": "text", "text": row["content"]}]}


def shape_of(render: Render) -> Shape:
    """The first shape in which every message reaches the prompt, or as many as can; texts are tried first.

    A template that refuses all of them gets texts: what is wrong is told when the dialogue is rendered.
    """
    best, reached = Shape(), 0
    for chosen in _choices():
        shape = Shape(chosen)
        written = _written(render, shape)
        found = sum(_reaches(mark, written[0]) for mark in MARKS) if written else 0
        if found > reached:
            best, reached = Shape(chosen, written), found
        if found == len(MARKS):
            break
    return best


def _choices() -> Iterator[frozenset[str]]:
    """No role, all of them, and then every other choice."""
    yield frozenset()
    yield frozenset(ROLES)
    for count in range(1, len(ROLES)):
        yield from map(frozenset, itertools.combinations(ROLES, count))


def _reaches(mark: str, written: str) -> bool:
    """Whether the template wrote the mark, and not the whole list of parts that it was given."""
    return mark in written and not re.search(rf"""text['"]:\s*['"]{mark}""", written)


def _written(render: Render, shape: Shape) -> tuple[str, ...]:
    """A short dialogue as the template writes it, with a system prompt if it takes one, and its first message."""
    said = [("user", USER), ("assistant", ANSWER), ("user", LAST)]
    written = []
    for texts in ([("system", SYSTEM), *said], said, said[:1]):
        try:
            written.append(render([shape.of({"role": role, "content": text}) for role, text in texts], True))
        except UsageError:
            continue
    return tuple(written)
