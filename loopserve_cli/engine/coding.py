"""Keys in eight bits, for choices among many of them, where this CPU multiplies those faster than float32.

One with VNNI or AMX in its instructions does. That is measured when a store is first asked, in some five milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from loopserve_kernels.key_codes import KeyCodes, Scratch

# Keys below which a choice made of them in full costs less than a step.
LEAST_CODED = 4096
KEYS, ROWS = 4096, 32  # of a tile, and of the queries that a choice is made from
REPEATS = 5
# Turning the sums into floats comes on top: less than this gains nothing.
GAIN = 1.5


class Coded(Protocol):
    """A store's layer, which tells its codes when keys are taken back."""

    codes: KeyCodes | None


class Coding:
    """The codes of one store's layers: who has some, and the room that judging by them takes."""

    def __init__(self) -> None:
        """Nothing is measured or allocated yet."""
        self._scratch = Scratch()
        self._gains: bool | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """What is allocated beside the layers' own codes."""
        return [self._scratch.held]

    def of(self, layer: Coded, key: Tensor) -> KeyCodes | None:
        """The codes of a layer's keys [G, N, D], brought up to date; None where judging by them gains nothing."""
        if key.device.type != "cpu" or key.shape[1] < LEAST_CODED:
            return None
        if self._gains is None:
            self._gains = codes_gain(key.shape[2])
        if not self._gains:
            return None
        if layer.codes is None:
            layer.codes = KeyCodes(self._scratch)
        layer.codes.follow(key)
        return layer.codes


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
