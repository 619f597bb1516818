"""Where a measurement was taken: without this its numbers mean little."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from loopserve_cli.collector import settled
from loopserve_cli.stats import versions


def describe(device: str | None) -> dict[str, Any]:
    """Versions, machine, processor, threads, the device's name and the load, now; unknown is None.

    Loads torch, unless there is no `device`: then nothing is computed here.

    `cores` counts physical ones, `cores_usable` those this process may run on; bytes are as named.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "cores_usable": usable,
        "memory_bytes": psutil.virtual_memory().total,
        "device": device,
        **_of_torch(device),
        "loadavg": load_average(),
    }


def _of_torch(device: str | None) -> dict[str, Any]:
    """Its threads, and its CUDA."""
    if device is None:
        return {"torch_threads": None, "cuda": None}
    import torch

    return {"torch_threads": torch.get_num_threads(), "cuda": torch.version.cuda}


@contextmanager
def measuring(device: str, dtype: str) -> Iterator[dict[str, Any]]:
    """Where it is measured, described before; inside, the collector is settled; the load is added at the end."""
    environment = describe(device) | {"dtype": dtype}
    with settled():
        yield environment
    environment["loadavg_end"] = load_average()


def load_average() -> list[float]:
    """The load of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in psutil.getloadavg()]


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The processor's name: Linux tells it in a file, other systems through `platform`."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or None
