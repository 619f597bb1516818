"""The memory meter: bytes in use on the model's GPUs and in the process, and how busy the GPUs are."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
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
