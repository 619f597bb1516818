"""Ctrl-C while something runs, and a keyboard that does not write into the picture."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

QUIT_WITHIN = 2.0


class Interrupts:
    """Remembers when Ctrl-C was last pressed: a second one within `QUIT_WITHIN` seconds quits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds; a test passes its own."""
        self._clock = clock
        self._last: float | None = None

    def press(self) -> None:
        """Ctrl-C was pressed just now."""
        self._last = self._clock()

    def recent(self) -> bool:
        """Was it pressed within the last `QUIT_WITHIN` seconds?"""
        return self._last is not None and self._clock() - self._last < QUIT_WITHIN

    @contextlib.contextmanager
    def catching(self, at_first: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
        """While this runs, Ctrl-C only sets a flag, however often; yields the question "was it pressed?".

        `at_first` is called by the handler the first time. The handler before is put back at the end. Must be
        entered in the main thread.
        """
        pressed = False

        def handler(_signal: int, _frame: FrameType | None) -> None:
            nonlocal pressed
            first, pressed = not pressed, True
            self.press()
            if first:
                at_first()

        before = signal.signal(signal.SIGINT, handler)
        try:
            yield lambda: pressed
        finally:
            signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


@contextlib.contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Keys typed meanwhile are not echoed; they wait for the next prompt. Nothing happens without a terminal."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, ValueError, OSError, termios.error):
        yield
        return
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
