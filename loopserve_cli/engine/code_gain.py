"""Whether a CPU multiplies eight-bit integers faster than float32: one with VNNI or AMX in its instructions does.

Nothing is kept but by the store that asked: it takes some five milliseconds, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

KEYS, ROWS = 4096, 32  # of a tile, and of the queries that a choice is made from
REPEATS = 5
# Turning the sums into floats comes on top: less than this gains nothing.
GAIN = 1.5


def codes_gain(size: int) -> bool:
    """Whether the product of codes of so many channels is that much faster; False where torch has none."""
    keys, rows = torch.ones(KEYS, size), torch.ones(ROWS, size)
    coded, turned = keys.to(torch.int8), rows.to(torch.int8).T
    plain, whole = torch.empty(KEYS, ROWS), torch.empty(KEYS, ROWS, dtype=torch.int32)
    try:
        codes_s = _lowest(lambda: torch._int_mm(coded, turned, out=whole))
    except RuntimeError:
        return False
    return _lowest(lambda: torch.mm(keys, rows.T, out=plain)) >= GAIN * codes_s


def _lowest(product: Callable[[], object]) -> float:
    """Seconds of the fastest of a few; other work on the machine only ever adds."""
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        product()
        times.append(time.perf_counter() - started)
    return min(times)
