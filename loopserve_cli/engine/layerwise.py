"""How far a prefill is within a chunk, told layer by layer: a chunk may be as long as a dialogue, and take a minute."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loopserve_cli.engine.events import PrefillProgress
from loopserve_cli.timers import Stopwatch

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.policies.prefill import PrefillTurn

Tell = Callable[[PrefillProgress], None]


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """Who hears of a prefill through so many `layers` that began at `began` on the `watch`, in milliseconds.

    What telling takes is not counted.
    """

    tell: Tell | None
    layers: int
    watch: Stopwatch
    began: float = 0.0

    def follow(self, prefill: PrefillTurn, chunk: int, at_end: PrefillProgress) -> None:
        """Have each layer tell, before and after it attends over the next chunk; `at_end` is the progress after it.

        Not on a GPU, which is asked for all layers long before it ends.
        """
        if self.tell is None or self.watch.gpus:
            return
        tell, calls = self.tell, itertools.count()

        def at_layer() -> None:
            part = chunk * next(calls) // (2 * self.layers)
            with self.watch.paused():
                tell(replace(at_end, done=at_end.done - chunk + part, ms=self.watch.now() - self.began))

        prefill.at_layer = at_layer


@contextlib.contextmanager
def told_within(engine: Engine, tell: Tell) -> Iterator[None]:
    """Inside, `tell` hears layer by layer how far a long prefill is within its chunks."""
    engine.on_progress = tell
    try:
        yield
    finally:
        engine.on_progress = None
