"""Pinned memory under a CUDA runtime that only notes what it is told: sizes as asked, and given back in time."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import pytest
import torch

from loopserve_cli.engine.pinned import FLAGS, pinned_empty

GPU = torch.device("cuda", 0)


class Runtime:
    """Notes what is pinned; `answer` is the code that it gives back."""

    def __init__(self, answer: int = 0) -> None:
        self.answer = answer
        self.told: list[tuple[Any, ...]] = []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.told.append(("register", address, size, flags))
        return self.answer

    def cudaHostUnregister(self, address: int) -> int:
        self.told.append(("unregister", address))
        return 0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    noted = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: noted)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: noted.told.append(("wait", device)))
    return noted


def test_as_many_bytes_are_pinned_as_were_asked_for(runtime: Runtime) -> None:
    held = pinned_empty((1, 2, 300, 64), torch.bfloat16, GPU)
    assert (held.shape, held.dtype, held.device.type) == ((1, 2, 300, 64), torch.bfloat16, "cpu")
    assert runtime.told == [("register", held.data_ptr(), 2 * 300 * 64 * 2, FLAGS)]
    assert held.data_ptr() % 4096 == 0, "whole pages"
    held.fill_(3)
    assert float(held.sum()) == 3 * 2 * 300 * 64


def test_the_last_tensor_gives_the_pages_back_after_a_wait(runtime: Runtime) -> None:
    held = pinned_empty((4, 10), torch.float32, GPU)
    address, part = held.data_ptr(), held[2:]
    part.fill_(7)
    del held
    gc.collect()
    assert len(runtime.told) == 1 and part.tolist() == [[7.0] * 10] * 2
    del part
    gc.collect()
    assert runtime.told[1:] == [("wait", GPU), ("unregister", address)]


def test_pages_that_cannot_be_pinned_are_a_memory_error_and_go(runtime: Runtime) -> None:
    runtime.answer = 2
    with pytest.raises(MemoryError, match=r"CUDA pins no 4,000 bytes of the host's \(error 2\)"):
        pinned_empty((1000,), torch.float32, GPU)
    gc.collect()
    assert [call[0] for call in runtime.told] == ["register"], "what was never pinned is not given back"


def test_nothing_is_pinned_for_no_rows(runtime: Runtime) -> None:
    assert pinned_empty((1, 2, 0, 64), torch.float16, GPU).shape == (1, 2, 0, 64)
    assert runtime.told == []


@pytest.mark.gpu
def test_a_gpu_reads_what_is_pinned() -> None:
    from loopserve_kernels.gather import gather_keys

    device = torch.device("cuda", torch.cuda.current_device())
    held = pinned_empty((2, 3, 5000, 64), torch.float16, device)
    held.normal_()
    assert held.is_pinned() and held[1, :, 17:].is_pinned()
    index = torch.arange(0, 4000, 4, dtype=torch.int32, device=device).repeat(3, 1)
    count = torch.full((3,), 1000, dtype=torch.int32, device=device)
    out = torch.empty(2, 3, 1000, 64, dtype=torch.float16, device=device)
    gather_keys(held[0], held[1], index, count, out[0], out[1])
    assert torch.equal(out.cpu(), held[:, :, :4000:4])
