"""Clocks and meters: what a turn cost in time and memory, on a GPU or a CPU."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The driver sums the utilisation over a while of this length or less.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use now, over all GPUs of the model. On a CPU there is none: only the resident set is known."""

    allocated_device_bytes: int | None
    reserved_device_bytes: int | None
    peak_device_bytes: int | None
    free_device_bytes: int | None
    rss_bytes: int


class Meter:
    """Reads the memory of the model's GPUs, with a peak that can be set back before each phase."""

    def __init__(self, gpus: Sequence[torch.device]) -> None:
        """Measure `gpus`, none on a CPU; the process's resident set is always measured."""
        import psutil

        self.gpus = gpus
        self.total_host_bytes: int = psutil.virtual_memory().total
        self._process = psutil.Process()
        self._busy: float | None = None
        self._busy_at = -BUSY_SECONDS

    def reset_peak(self) -> None:
        """Begin a new phase: the peak counts from here."""
        for gpu in self.gpus:
            import torch

            torch.cuda.reset_peak_memory_stats(gpu)

    def read(self) -> Memory:
        """Bytes in use at this moment."""
        rss = self._process.memory_info().rss
        if not self.gpus:
            return Memory(None, None, None, None, rss)
        import torch

        return Memory(
            allocated_device_bytes=sum(map(torch.cuda.memory_allocated, self.gpus)),
            reserved_device_bytes=sum(map(torch.cuda.memory_reserved, self.gpus)),
            peak_device_bytes=sum(map(torch.cuda.max_memory_allocated, self.gpus)),
            free_device_bytes=sum(torch.cuda.mem_get_info(gpu)[0] for gpu in self.gpus),
            rss_bytes=rss,
        )

    @functools.cached_property
    def total_device_bytes(self) -> int | None:
        """Bytes that the GPUs have; None without one."""
        import torch

        return sum(torch.cuda.mem_get_info(gpu)[1] for gpu in self.gpus) if self.gpus else None

    def busy(self) -> float | None:
        """The share of the last while in which the GPUs computed, asked at most once in `BUSY_SECONDS`.

        None without a GPU, and where nvidia-ml-py, which the driver is asked through, is not installed.
        """
        if self.gpus and time.monotonic() - self._busy_at >= BUSY_SECONDS:
            import torch

            self._busy_at = time.monotonic()
            try:
                self._busy = sum(map(torch.cuda.utilization, self.gpus)) / (100 * len(self.gpus))
            except Exception:  # no nvidia-ml-py, or whatever the driver says through it: a figure less, no turn less
                self._busy, self._busy_at = None, math.inf
        return self._busy


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
