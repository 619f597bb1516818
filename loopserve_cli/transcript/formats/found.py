"""What a format is, and what reading a record with it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.place import Place
from loopserve_cli.transcript.tools import Tools

Record = dict[str, Any]
Rows = list[tuple[Place, Record]]


@dataclass(frozen=True, slots=True)
class Found:
    """A dialogue as it stands in a file; `id` is None where the record has none, `label` tells its variants apart.

    `lost` names what stands beside the messages and reaches no prompt.
    """

    id: str | None
    messages: list[Message]
    place: Place
    label: str = ""
    tools: Tools = ()
    date: str | None = None
    lost: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Format:
    """One format: what tells it, how the records of one dialogue are read, and what a record needs.

    `group` gives the dialogue that a record belongs to; without it, or where it is None, each is one by itself.
    """

    name: str
    needs: str
    tells: Callable[[Record], bool]
    read: Callable[[Rows], list[Found]]
    group: Callable[[Record], str | None] | None = None


def one(read: Callable[[Record, Place], Found]) -> Callable[[Rows], list[Found]]:
    """Reads a dialogue that is one record."""
    return lambda rows: [read(rows[0][1], rows[0][0])]


def has(*names: str) -> Callable[[Record], bool]:
    """Whether a record has all these fields."""
    return lambda record: all(name in record for name in names)


def has_kind(name: str, kind: type) -> Callable[[Record], bool]:
    """Whether a record's field is of a kind."""
    return lambda record: isinstance(record.get(name), kind)
