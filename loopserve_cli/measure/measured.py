"""A turn that was measured: its record, and the ids that it answered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loopserve_cli.engine.events import Event, Token, TurnDone
from loopserve_cli.heads import HeadFigures
from loopserve_cli.stats import TurnRecord


@dataclass(frozen=True, slots=True)
class Measured:
    """A turn's record with the ids of its output tokens, and what its heads computed and read where that is kept."""

    record: TurnRecord
    output_ids: tuple[int, ...] = ()
    heads: HeadFigures | None = None


def drained(events: Iterable[Event], look: Callable[[Event], None] = lambda event: None) -> Measured:
    """A turn, run to its end. Nothing but `look` happens meanwhile, so that only the turn is timed."""
    ids: list[int] = []
    done: TurnDone | None = None
    for event in events:
        if isinstance(event, Token):
            ids.append(event.id)
        elif isinstance(event, TurnDone):
            done = event
        look(event)
    assert done is not None, "a turn ends with TurnDone"
    return Measured(done.record, tuple(ids), done.heads)


def share_equal(left: Sequence[int], right: Sequence[int]) -> float | None:
    """The share of places that hold the same token, over the longer of the two; None when both are empty."""
    longer = max(len(left), len(right))
    if not longer:
        return None
    return sum(a == b for a, b in zip(left, right, strict=False)) / longer
