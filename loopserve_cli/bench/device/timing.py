"""How long work takes: called from Python, replayed as a CUDA graph, and by the kernels that a GPU ran for it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from loopserve_cli.bench.kernels.clock import Clock

Work = Callable[[], object]
ROUNDS = 5
# Kernels listed by name; the others are summed.
NAMED = 12


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
        return {"captured_ms": None, "refusal": str(error.__context__ or error).partition("\n")[0]}
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
        return str(error).partition("\n")[0]
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
