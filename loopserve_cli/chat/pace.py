"""How often a screen is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

REDRAW_SECONDS = 0.05
REDRAW_SHARE = 0.2


class Pace:
    """When to draw again: at most every `seconds`, and for at most a `share` of the time."""

    def __init__(
        self,
        clock: Callable[[], float],
        share: float = REDRAW_SHARE,
        seconds: float = REDRAW_SECONDS,
        forgives: bool = False,
    ) -> None:
        """The first drawing is due at once.

        With `forgives` a drawing that took longer than the one before it does not count: where the share is small, a
        hitch of the machine would else stop the screen for seconds.
        """
        self._clock = clock
        self._share, self._seconds, self._forgives = share, seconds, forgives
        self._took = math.inf
        self._next = clock()

    def due(self) -> bool:
        """Is it time?"""
        return self._clock() >= self._next

    def drawn(self, start: float) -> None:
        """A drawing that began at `start` has just ended."""
        took, before = self._clock() - start, self._took
        self._took = took
        counted = min(took, before) if self._forgives else took
        self._next = start + max(self._seconds, counted / self._share)
