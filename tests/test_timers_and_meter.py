"""Meters and clocks: every GPU of the model counts, and a reader's time does not."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from loopserve_cli.memory_meter import Meter
from loopserve_cli.timers import Stopwatch

TWO = (torch.device("cuda", 0), torch.device("cuda", 1))


def test_memory_is_that_of_all_the_models_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, Any] = {"memory_allocated": 10, "memory_reserved": 20, "max_memory_allocated": 15}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda gpu, value=value: value + gpu.index)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (100 * (gpu.index + 1), 1000))
    memory = Meter(TWO).read()
    assert (memory.allocated_device_bytes, memory.reserved_device_bytes) == (21, 41)
    assert (memory.peak_device_bytes, memory.free_device_bytes) == (31, 300)
    assert memory.rss_bytes > 2**20


def test_without_a_gpu_only_the_resident_set_is_known() -> None:
    memory = Meter(()).read()
    assert memory.peak_device_bytes is memory.allocated_device_bytes is memory.free_device_bytes is None
    assert memory.rss_bytes > 2**20


def test_every_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    assert Stopwatch(TWO).ms() >= 0
    assert waited == [*TWO]


def test_a_pause_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 7.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    watch = Stopwatch((), started=5.0)
    with watch.paused():
        now += 40
    now += 1
    assert watch.ms() == pytest.approx(3000)
