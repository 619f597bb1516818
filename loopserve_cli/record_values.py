"""What stands in a record's fields when it is read back from JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

# Sums of larger whole numbers are no floats, so they cannot be divided or shown.
MOST = 10**300


def _is_text(value: Any) -> bool:
    """Whether it is text without half characters, which no file or terminal takes."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def measurable(value: Any) -> bool:
    """False for what is infinite or no number, and for whole numbers of hundreds of digits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -MOST <= value <= MOST


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, [*value, *value.values()]))


# What a field of the record is in JSON, by its annotation, and in words.
JSON_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str | None": (lambda one: one is None or _is_text(one), "text or null"),
    "int | None": (lambda one: one is None or (_is_number(one) and isinstance(one, int)), "a whole number or null"),
    "float | None": (lambda one: one is None or _is_number(one), "a number or null"),
    "list[float]": (lambda one: isinstance(one, list) and all(map(_is_number, one)), "a list"),
    "dict[str, str]": (_are_texts, "an object"),
}
