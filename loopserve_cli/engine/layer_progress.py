"""How far a long chunk of a prefill is, told between its layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from loopserve_cli.engine.events import PrefillProgress

# A shorter chunk is done within a second on most machines.
LONG_CHUNK = 1024

Tell = Callable[[PrefillProgress], None]


@dataclass(slots=True)
class LayerProgress:
    """Called after every layer of a chunk: `tell` hears of `size` new tokens after `before` of `total`.

    Where lines are chosen a chunk is as long as memory allows, and cutting it would choose worse. What telling takes
    is in no figure: it is done inside `paused`.
    """

    tell: Tell
    paused: Callable[[], AbstractContextManager[None]]
    layers: int
    before: int
    size: int
    total: int
    passed: int = 0

    def __call__(self) -> None:
        """One more layer is through; the last token counts when the whole chunk is."""
        self.passed += 1
        if self.size < LONG_CHUNK:
            return
        worth = min(self.size * self.passed // self.layers, self.size - 1)
        with self.paused():
            self.tell(PrefillProgress(self.before + worth, self.total))
