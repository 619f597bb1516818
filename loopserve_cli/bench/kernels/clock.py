"""How long work takes: called from Python, replayed as a CUDA graph, and by the kernels that a GPU ran for it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from loopserve_cli.errors import first_line

Answer = TypeVar("Answer")
Work = Callable[[], object]
# A shorter stretch than this is repeated: the clock and the launch would be a good part of it.
LEAST_MS = {"cpu": 20.0, "cuda": 2.0}
MOST_REPEATS = 50
ROUNDS = 5
# Kernels listed by name; the others are summed.
NAMED = 12


class Clock:
    """Times calls on one device: the wall clock on a CPU, events on a GPU's own stream."""

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
            torch.cuda.synchronize(self.device)

    def repeats(self, ms: float) -> int:
        """How often to repeat a call of so many milliseconds."""
        return max(1, min(MOST_REPEATS, math.ceil(LEAST_MS[self.device.type] / max(ms, 1e-6))))

    def _events(self, work: Work, repeats: int) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self.device)
        stream = torch.cuda.current_stream(self.device)
        begin.record(stream)
        for _ in range(repeats):
            work()
        end.record(stream)
        torch.cuda.synchronize(self.device)
        return begin.elapsed_time(end)


def median_ms(work: Work, device: torch.device, rounds: int = ROUNDS) -> float:
    """Milliseconds of a call, the median of some rounds after two calls that warm up."""
    clock = Clock(device)
    clock.first_ms(work)
    repeats = clock.repeats(clock.first_ms(work))
    return statistics.median(clock.ms(work, repeats) for _ in range(rounds))


def captured_ms(work: Work, device: torch.device) -> dict[str, Any]:
    """`captured_ms` of a replay, None where `refusal` says why there is none. Call it on work that has run before."""
    if device.type != "cuda":
        return {"captured_ms": None, "refusal": "only a GPU has graphs"}
    why = wait_in(work)
    if why is not None:
        return {"captured_ms": None, "refusal": why}
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    try:
        with torch.cuda.device(device), torch.cuda.graph(graph):
            held = work()
    except RuntimeError as error:
        torch.cuda.set_stream(stream)  # which a capture that fails does not put back
        return {"captured_ms": None, "refusal": first_line(error.__context__ or error)}
    ms = median_ms(graph.replay, device)
    del held
    return {"captured_ms": ms, "refusal": None}


def wait_in(work: Work) -> str | None:
    """Why the host waits for the GPU in it, by torch's own watch; None where it does not."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        return first_line(error)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return None


def kernels_of(work: Work, device: torch.device) -> dict[str, Any]:
    """What the GPU ran: `kernels` in all, their `device_ms`, and the longest `by_name` [count, ms]; None on a CPU."""
    if device.type != "cuda":
        return {"kernels": None, "device_ms": None, "by_name": None}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize(device)
    rows = [(row.key, row.count, row.self_device_time_total / 1e3) for row in found.key_averages()]
    ran = sorted((row for row in rows if row[2] > 0), key=lambda row: -row[2])
    return {
        "kernels": sum(count for _, count, _ in ran) or None,
        "device_ms": sum(ms for _, _, ms in ran) or None,
        "by_name": {name[:80]: [count, ms] for name, count, ms in ran[:NAMED]},
    }
