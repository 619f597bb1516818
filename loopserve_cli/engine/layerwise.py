"""How far a prefill is within a chunk, told layer by layer: a chunk may be as long as a dialogue, and take a minute."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from loopserve_cli.engine.events import PrefillProgress
from loopserve_cli.profiling import Stopwatch

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine

Tell = Callable[[PrefillProgress], None]


def telling(
    tell: Tell, chunk: int, layers: int, at_end: PrefillProgress, watch: Stopwatch, began: float
) -> Callable[[], None]:
    """What each of so many layers calls before and after it attends, over a chunk of so many tokens.

    `at_end` is the progress once the chunk is read, `began` the prefill's begin on the `watch`, in milliseconds. What
    telling takes is not counted.
    """
    calls = itertools.count()

    def at_layer() -> None:
        part = chunk * next(calls) // (2 * layers)
        with watch.paused():
            tell(replace(at_end, done=at_end.done - chunk + part, ms=watch.now() - began))

    return at_layer


@contextlib.contextmanager
def told_within(engine: Engine, tell: Callable[[PrefillProgress], None]) -> Iterator[None]:
    """Inside, `tell` hears layer by layer how far a long prefill is within its chunks."""
    engine.on_progress = tell
    try:
        yield
    finally:
        engine.on_progress = None
