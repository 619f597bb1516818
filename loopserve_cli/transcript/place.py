"""Where something stands in a dialogue file, and the errors that say so in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from loopserve_cli.errors import TranscriptError


@dataclass(frozen=True, slots=True)
class Place:
    """A file, and in it a physical line (JSONL) or an item of its list (JSON), and a part of that; all count from 1."""

    file: str
    line: int | None = None
    item: int | None = None
    part: str = ""

    def __str__(self) -> str:
        """For example "talk.jsonl:7: message 2"."""
        steps = [self.file if self.line is None else f"{self.file}:{self.line}"]
        if self.item is not None:
            steps.append(f"item {self.item}")
        if self.part:
            steps.append(self.part)
        return ": ".join(steps)

    def within(self, part: str) -> Place:
        """A part of this record, such as "message 2"."""
        return replace(self, part=part)

    def error(self, problem: str) -> RecordError:
        """The error to raise: this place, and what is wrong and what to do."""
        return RecordError(self, problem)


class RecordError(TranscriptError):
    """Something wrong at a place in a file; `problem` says what, and what to do."""

    def __init__(self, place: Place, problem: str) -> None:
        """One line: the place and the problem."""
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem

    @property
    def cause(self) -> str:
        """What is wrong, without the column and without what to do: the same for all records of that kind."""
        return self.problem.partition(";")[0].partition(" at column ")[0]


KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    return KINDS.get(type(value), "null")


def shown(value: str) -> str:
    """A value from a file, quoted, on one line and short."""
    return repr(value if len(value) <= 40 else value[:37] + "...")


def need(record: Mapping[str, Any], name: str, place: Place, needs: str) -> Any:
    """The field's value; `needs` says what the record consists of, for the error when it is missing."""
    if name not in record:
        raise place.error(f"{name} is missing; {needs}")
    return record[name]


def as_object(value: Any, place: Place, needs: str) -> dict[str, Any]:
    """The value if it is an object."""
    if not isinstance(value, dict):
        raise place.error(f"must be an object, not {kind(value)}; {needs}")
    return value


def as_list(value: Any, name: str, place: Place) -> list[Any]:
    """The value if it is a list with something in it."""
    if not isinstance(value, list):
        raise place.error(f"{name} must be a list, not {kind(value)}")
    if not value:
        raise place.error(f"{name} is empty; put messages in it or remove the dialogue")
    return value


def as_text(value: Any, name: str, place: Place, may_be_empty: bool = False) -> str:
    """The value if it is text that a tokenizer can take, and not blank."""
    if not isinstance(value, str):
        raise place.error(f"{name} must be text, not {kind(value)}")
    if not may_be_empty and not value.strip():
        raise place.error(f"{name} is empty; write something or remove the message")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise place.error(f"{name} holds half a character ({half}); remove it or write the whole pair") from None
    return value


def as_id(value: Any) -> str | None:
    """An id as text, whatever it is, since it only names a record; None where it names nothing."""
    try:
        name = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        name.encode()
    except (ValueError, RecursionError):
        return None
    return name if value is not None and value not in ([], {}) and name.strip() else None
