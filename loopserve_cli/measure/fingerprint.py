"""What must be the same for two processes to be one run, and the first thing that is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

GONE = object()


def digest(value: Any) -> str:
    """A hash of JSON types, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def plain(value: Any) -> Any:
    """As it reads back from JSON."""
    return json.loads(json.dumps(value, default=str))


def difference(before: Any, now: Any) -> str | None:
    """The first place where two JSON values differ, in words: "keep.budget was 512 and is 8"; None where they agree."""
    return next(differences(before, now), None)


def differences(before: Any, now: Any) -> Iterator[str]:
    """Every place where they differ, in the same words."""
    was, is_now = _flat(before), _flat(now)
    for place in [*was, *(place for place in is_now if place not in was)]:
        old, new = was.get(place, GONE), is_now.get(place, GONE)
        if old != new:
            yield f"{place or 'it'} was {_word(old)} and is {_word(new)}"


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Every leaf by its place, the keys joined by dots; an empty table or list is a leaf."""
    children: Mapping[Any, Any] = {}
    if isinstance(value, Mapping):
        children = value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        children = dict(enumerate(value))
    if not children:
        return {place: value}
    found: dict[str, Any] = {}
    for key, child in children.items():
        found |= _flat(child, f"{place}.{key}" if place else str(key))
    return found


def _word(value: Any) -> str:
    return "not there" if value is GONE else "not set" if value is None else str(value)
