"""The order in which variants are measured: all in every round, the first to go changing from round to round.

A machine that slows down or warms up in the middle then does so for all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Variant = TypeVar("Variant")
Result = TypeVar("Result")


def rotated(variants: Sequence[Variant], by: int) -> list[Variant]:
    """All of them, starting `by` places further on."""
    start = by % len(variants)
    return [*variants[start:], *variants[:start]]


def in_rounds(
    variants: Sequence[Variant],
    rounds: int,
    measure: Callable[[list[Variant], int], Iterable[Result]],
    say: Callable[[str], None],
    what: str = "",
) -> list[Result]:
    """What `measure` found, given the variants in their order and the round, which counts from 1.

    Round 0 warms up at full size, compiles and captures, and is left out. `say` is told of each, `what` before it.
    """
    found: list[Result] = []
    for number in range(rounds + 1):
        say(what + (f"round {number} of {rounds}" if number else "warm-up: one round, not recorded"))
        measured = list(measure(rotated(variants, number), number))
        found += measured if number else []
    return found
