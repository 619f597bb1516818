"""Timers: what a turn and its parts took, on a GPU or a CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Stopwatch:
    """The wall clock of one turn, which stands still while the reader of its events works.

    Drawing a dashboard must not make a model look slow: `paused` wraps a yield, and what passes inside it is in no
    figure. Not so where the device computes the next token meanwhile: then the wall clock counts, since time that
    was left out would be time in which the model worked. A token's time is what the reader of the events gets.
    """

    def __init__(self, gpus: Sequence[torch.device], started: float | None = None) -> None:
        """Start at `started` (a `time.perf_counter` stamp) or now; `gpus` are those whose work counts."""
        self.gpus = gpus
        self._started = time.perf_counter() if started is None else started
        self._paused = 0.0

    def ms(self) -> float:
        """Milliseconds so far, once the GPUs have done all that was asked of them."""
        for gpu in self.gpus:
            import torch

            torch.cuda.synchronize(gpu)
        return self.now()

    def now(self) -> float:
        """Milliseconds so far, whatever the GPUs are doing: for what is on the host already."""
        return (time.perf_counter() - self._started - self._paused) * 1e3

    @contextmanager
    def paused(self, really: bool = True) -> Iterator[None]:
        """Do not count the time spent inside, unless not `really`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if really:
                self._paused += time.perf_counter() - began


class Spans:
    """Time spent in one kind of work, summed over many short stretches without waiting for a GPU in each.

    On a GPU every stretch is a pair of events on its stream, read at the end; on a CPU it is the wall clock.
    """

    def __init__(self) -> None:
        """Nothing spent yet."""
        self._host_ms = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def span(self, device: torch.device) -> Iterator[None]:
        """Count what is done inside, on `device`."""
        if device.type == "cuda":
            import torch

            stream = torch.cuda.current_stream(device)
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record(stream)
            yield
            events[1].record(stream)
            self._events.append(events)
        else:
            began = time.perf_counter()
            yield
            self._host_ms += (time.perf_counter() - began) * 1e3

    def ms(self) -> float:
        """Milliseconds spent inside all stretches; waits for the last one on a GPU."""
        for _, end in self._events:
            end.synchronize()
        return self._host_ms + sum(begin.elapsed_time(end) for begin, end in self._events)
