"""Ctrl-C that waits for a write to end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

PATIENCE = 1.0  # seconds


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Ctrl-C meanwhile takes effect at the end; pressed again a second later, at once: a disk may hang.

    In a thread that gets no signals nothing is done.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed: float | None = None

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed is None:
            pressed = time.monotonic()
        elif time.monotonic() - pressed > PATIENCE:
            before(number, frame)

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed is not None:
            before(signal.SIGINT, None)
