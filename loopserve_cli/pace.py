"""How often a screen is drawn, and how the time is written that a wait still takes."""

from __future__ import annotations

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

        With `forgives` the share is that of all drawings but the longest one: where it is small, one hitch of the
        machine would else stop the screen for seconds.
        """
        self._clock = clock
        self._share, self._seconds, self._forgives = share, seconds, forgives
        self._spent = self._longest = 0.0
        self._began = self._next = clock()

    def due(self) -> bool:
        """Is it time?"""
        return self._clock() >= self._next

    def also(self, start: float) -> None:
        """Something else that began at `start`, and is to count as drawing, has just ended."""
        self._spent += self._clock() - start

    def drawn(self, start: float) -> None:
        """A drawing that began at `start` has just ended."""
        took = self._clock() - start
        self._spent += took
        self._longest = max(self._longest, took)
        if self._forgives:
            due = self._began + (self._spent - self._longest) / self._share
        else:
            due = start + took / self._share
        self._next = max(start + self._seconds, due)


def brief(seconds: float) -> str:
    """A time that is left: whole seconds, then minutes and seconds."""
    whole = int(seconds + 0.999)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"
