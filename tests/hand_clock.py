"""A clock that a test moves by hand, in place of time.perf_counter: what a busy machine takes is in no assertion."""

from __future__ import annotations

import time

import pytest

TICK = 1 / 16
# What one look at the clock takes: so little that a turn of thousands stays under NOTHING_MS, and not nothing, since
# rates are taken of it. Both are powers of two, whose sums and differences are exact.
LOOK = 2**-40
NOTHING_MS = 1e-5


class HandClock:
    """Seconds that pass only where a test lets them, but for the looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += LOOK
        return self.now

    def tick(self, *_: object) -> None:
        """Let 62.5 ms pass, as a reader of events does that draws."""
        self.now += TICK


def in_hand(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """From here to the test's end, time.perf_counter is a clock that stands still until it is moved."""
    clock = HandClock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock
