"""Decode attention against float64: working sets with NaN behind their lengths, one length per head, all head sizes."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import relative_rms
from decode_oracle import exact_decode, working_set
from torch.profiler import ProfilerActivity, profile

from loopserve_kernels.decode import decode_attention, decode_attention_torch

TYPES = [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)]
SHAPES = [(6, 2, [1, 1]), (4, 4, [9, 9, 9, 9]), (8, 1, [77]), (14, 2, [130, 3]), (6, 3, [64, 301, 17])]


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("heads", "groups", "lengths"), SHAPES)
def test_cpu_path_and_twin_equal_float64(
    heads: int, groups: int, lengths: list[int], size: int, dtype: torch.dtype, bound: float
) -> None:
    given = working_set(heads, lengths, size, dtype)
    exact = exact_decode(*given, 0.2)
    for compute in (decode_attention, decode_attention_torch):
        out = compute(*given, 0.2)
        assert out.shape == (heads, size) and out.dtype == dtype
        assert relative_rms(out, exact) < bound


@pytest.mark.parametrize("lengths", [[20000, 20000], [20000, 19000]])
def test_keys_are_not_copied(lengths: list[int]) -> None:
    """Most of a step's time is reading keys, so nothing of their size may be allocated."""
    given = working_set(8, lengths, 64, torch.float16, spare=1000)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        decode_attention(*given, 0.125)
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in seen.events())
    assert allocated < given[1].nbytes / 20, f"{allocated} bytes for {given[1].nbytes} bytes of keys"


@pytest.mark.parametrize("lengths", [[0, 4], [5, 14]])
def test_lengths_outside_the_buffer_are_refused(lengths: list[int]) -> None:
    query, key, value, _ = working_set(4, [4, 4])
    for compute in (decode_attention, decode_attention_torch):
        with pytest.raises(AssertionError, match="of a capacity of 13"):
            compute(query, key, value, torch.tensor(lengths, dtype=torch.int32), 0.2)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("heads", "groups", "lengths"), [*SHAPES, (32, 8, [20011] * 8), (71, 1, [700])])
def test_triton_on_a_gpu(
    heads: int, groups: int, lengths: list[int], size: int, dtype: torch.dtype, bound: float
) -> None:
    given = working_set(heads, lengths, size, dtype)
    out = decode_attention(*(part.cuda() for part in given), 0.1)
    assert out.dtype == dtype and relative_rms(out.cpu(), exact_decode(*given, 0.1)) < bound


@pytest.mark.gpu
def test_a_captured_graph_replays_with_other_lengths() -> None:
    query, key, value, lengths = (part.cuda() for part in working_set(8, [900, 900], 128, torch.float16))
    decode_attention(query, key, value, lengths, 0.1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decode_attention(query, key, value, lengths, 0.1)
    for wanted in ([900, 5], [1, 333], [64, 65]):
        lengths.copy_(torch.tensor(wanted, dtype=torch.int32))
        graph.replay()
        exact = exact_decode(query.cpu(), key.cpu(), value.cpu(), lengths.cpu(), 0.1)
        assert relative_rms(out.cpu(), exact) < 2e-3
        assert torch.equal(out, decode_attention(query, key, value, lengths, 0.1))
