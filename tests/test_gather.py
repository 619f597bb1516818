"""Gather: the selected rows arrive, everything else stays as it was."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import tensors
from torch.profiler import ProfilerActivity, profile

from loopserve_kernels.gather import gather_keys
from loopserve_kernels.selection import select_keys


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("keys", "size", "width", "capacity"), [(1, 64, 4, 4), (77, 80, 33, 50), (130, 128, 130, 131)])
def test_selected_rows_arrive(keys: int, size: int, width: int, capacity: int, dtype: torch.dtype, device: str) -> None:
    _, key, value = (part.to(device) for part in tensors(6, 3, 1, keys, size, dtype))
    budgets = torch.tensor([width, 3, 2], device=device)
    chosen = select_keys(torch.rand(3, keys, device=device), width, 1, 1, budgets=budgets)
    # Buffers with strides of their own, whose last row is not the function's.
    room = torch.full((2, capacity + 1, 3, size), float("nan"), dtype=dtype, device=device).transpose(1, 2)
    counts = torch.zeros(3, dtype=torch.int32, device=device)
    gather_keys(key, value, chosen.index, chosen.count, room[0, :, :capacity], room[1, :, :capacity], counts)
    assert torch.equal(counts, chosen.count)
    for out, store in zip(room, (key, value), strict=True):
        for head, count in enumerate(chosen.count.tolist()):
            assert torch.equal(out[head, :count], store[head, chosen.index[head, :count].long()])
            assert bool(out[head, count:].isnan().all())


def test_rows_are_copied_straight_into_the_buffers() -> None:
    _, key, value = tensors(4, 2, 1, 5000, 64)
    chosen = select_keys(torch.rand(2, 5000), 1000, 4, 64)
    room = torch.empty(2, 2, 1016, 64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        gather_keys(key, value, chosen.index, chosen.count, room[0], room[1])
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in seen.events())
    assert allocated < 4096, f"{allocated} bytes"


def test_buffers_that_are_too_small_are_refused() -> None:
    _, key, value = tensors(6, 3, 1, 40, 64)
    chosen = select_keys(torch.rand(3, 40), 20, 1, 1)
    with pytest.raises(AssertionError):
        gather_keys(key, value, chosen.index, chosen.count, torch.empty(3, 19, 64), torch.empty(3, 19, 64))
