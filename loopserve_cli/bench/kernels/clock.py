"""How long a call takes: the wall clock on a CPU, events on a GPU's own stream."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Answer = TypeVar("Answer")
Work = Callable[[], object]
# A shorter stretch than this is repeated: the clock and the launch would be a good part of it.
LEAST_MS = {"cpu": 20.0, "cuda": 2.0}
MOST_REPEATS = 50


class Clock:
    """Times calls on one device."""

    def __init__(self, device: torch.device) -> None:
        """A clock for `device`, a CPU or a GPU."""
        self.device = device

    def ms(self, work: Work, repeats: int = 1) -> float:
        """Milliseconds of one call: the mean of `repeats` calls in a row, the device idle before and after."""
        if self.device.type == "cuda":
            return self._events(work, repeats) / repeats
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - began) * 1e3 / repeats

    def first_ms(self, work: Work) -> float:
        """Milliseconds of a first call by the wall clock, with all that it compiles and tunes."""
        began = time.perf_counter()
        work()
        self.wait()
        return (time.perf_counter() - began) * 1e3

    def first(self, work: Callable[[], Answer]) -> tuple[Answer, float]:
        """A first call's answer and its milliseconds."""
        answers: list[Answer] = []
        ms = self.first_ms(lambda: answers.append(work()))
        return answers[0], ms

    def wait(self) -> None:
        """Until the device has done all it was asked."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)

    def repeats(self, ms: float) -> int:
        """How often to repeat a call of so many milliseconds."""
        return max(1, min(MOST_REPEATS, math.ceil(LEAST_MS[self.device.type] / max(ms, 1e-6))))

    def _events(self, work: Work, repeats: int) -> float:
        import torch

        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self.device)
        stream = torch.cuda.current_stream(self.device)
        begin.record(stream)
        for _ in range(repeats):
            work()
        end.record(stream)
        torch.cuda.synchronize(self.device)
        return begin.elapsed_time(end)
