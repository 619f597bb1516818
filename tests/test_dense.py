"""Dense attention against float64, on odd shapes and strides, with what only explicit scores can do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from launches import counted
from torch import Tensor

from loopserve_kernels.dense import dense_attention, masked_attention
from loopserve_kernels.dense_gpu import Partial, cudnn_partial, flash_partial, folded_attention, history_and_own


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """softmax(q k) v over the visible keys, in float64 and with every tensor written out."""
    query, key, value = query.double(), key.double(), value.double()
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    rows, keys = scores.shape[-2:]
    distance = torch.arange(keys - rows, keys)[:, None] - torch.arange(keys)
    hidden = (distance < 0) | (distance >= (window or keys))
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        column = sinks.double().reshape(1, -1, 1, 1).expand(scores.shape[0], -1, rows, 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1] @ value
    return scores.softmax(-1) @ value


def relative_rms(ours: Tensor, exact: Tensor) -> float:
    return float(((ours.double() - exact).square().mean() / exact.square().mean()).sqrt())


def tensors(rows: int, keys: int, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(rows * keys + size)
    query = torch.randn(1, rows, 6, size, dtype=dtype).transpose(1, 2)
    room = torch.full((2, 1, 2, keys + 9, size), float("nan"), dtype=dtype)
    room[:, :, :, :keys] = torch.randn(2, 1, 2, keys, size, dtype=dtype)
    return query, room[0, :, :, :keys], room[1, :, :, :keys]


SHAPES = [(1, 1), (1, 77), (5, 5), (3, 4), (64, 65), (130, 700), (513, 1025), (700, 700)]


@pytest.mark.parametrize(("rows", "keys"), SHAPES)
@pytest.mark.parametrize("size", [16, 64, 80])
def test_dense_equals_float64(rows: int, keys: int, size: int) -> None:
    query, key, value = tensors(rows, keys, size)
    exact = reference(query, key, value, 0.3)
    assert relative_rms(dense_attention(query, key, value, 0.3), exact) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_dense_in_half_precision(dtype: torch.dtype, bound: float) -> None:
    query, key, value = tensors(33, 190, 64, dtype)
    assert relative_rms(dense_attention(query, key, value, 0.125), reference(query, key, value, 0.125)) < bound


@pytest.mark.parametrize(("rows", "keys"), SHAPES)
@pytest.mark.parametrize("window", [None, 1, 24, 600])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_masked_equals_float64(
    rows: int, keys: int, window: int | None, softcap: float | None, with_sinks: bool
) -> None:
    query, key, value = tensors(rows, keys, 16)
    sinks = torch.linspace(-2, 3, 6) if with_sinks else None
    ours = masked_attention(query, key, value, 0.3, window, softcap, sinks)
    assert relative_rms(ours, reference(query, key, value, 0.3, window, softcap, sinks)) < 1e-5


def test_a_history_is_never_ignored() -> None:
    """Upper-left causality, which hides the history, must be far from what we compute."""
    query, key, value = tensors(8, 200, 64)
    hidden = dense_attention(query, key[:, :, :8], value[:, :, :8], 0.125)
    assert relative_rms(hidden, reference(query, key, value, 0.125)) > 0.5


def test_history_and_own_merged_equals_float64() -> None:
    """What a GPU does on rectangular chunks, with a kernel that stands for cuDNN's or FlashAttention's."""
    query, key, value = tensors(130, 700, 64)

    def partial(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        scores = q @ k.repeat_interleave(3, 1).transpose(-1, -2) * 0.3
        assert not causal or scores.shape[2] == scores.shape[3]  # neither kernel is causal from the lower right
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        return scores.softmax(-1) @ v.repeat_interleave(3, 1), scores.logsumexp(-1).flatten()

    assert relative_rms(history_and_own(query, key, value, partial), reference(query, key, value, 0.3)) < 1e-5


@pytest.mark.parametrize(("rows", "keys"), [(5, 5), (64, 65), (513, 1025)])
def test_folded_heads_equal_float64(rows: int, keys: int) -> None:
    query, key, value = tensors(rows, keys, 64)
    assert relative_rms(folded_attention(query, key, value, 0.3), reference(query, key, value, 0.3)) < 1e-5


EFFICIENT, FLASH = (f"aten._scaled_dot_product_{name}_attention.default" for name in ("efficient", "flash"))


@pytest.mark.parametrize(
    ("dtype", "rows", "keys", "kernel", "calls"),
    [
        (torch.bfloat16, 8192, 8192, FLASH, 1),
        (torch.bfloat16, 8192, 32768, FLASH, 2),
        (torch.bfloat16, 90, 32768, FLASH, 1),
        (torch.float32, 8192, 8192, EFFICIENT, 1),
        (torch.float32, 8192, 32768, EFFICIENT, 1),
    ],
)
def test_a_gpu_runs_fused_kernels_and_waits_for_nothing(
    dtype: torch.dtype, rows: int, keys: int, kernel: str, calls: int
) -> None:
    query = torch.empty(1, 32, rows, 128, dtype=dtype, device="meta")
    key, value = (torch.empty(1, 8, keys, 128, dtype=dtype, device="meta") for _ in range(2))
    with counted() as found:
        out = dense_attention(query, key, value, 0.1)
    assert out.shape == query.shape
    assert found.torch[kernel] == calls and not found.waits
    assert found.launches <= 6 and not any("softmax" in name or "bmm" in name for name in found.torch)


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "keys"), [(1024, 1024), (1500, 4097), (77, 2000)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize("size", [64, 80, 128])
def test_dense_on_a_gpu(rows: int, keys: int, dtype: torch.dtype, bound: float, size: int) -> None:
    query, key, value = (part.cuda() for part in tensors(rows, keys, size, dtype))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = dense_attention(query, key, value, 0.1)
    if rows * keys > 2**20:  # where that is less than one copy of the scores
        assert torch.cuda.max_memory_allocated() - before < 6 * rows * keys * 4
    assert relative_rms(out, reference(query, key, value, 0.1)) < bound


@pytest.mark.gpu
@pytest.mark.parametrize("made", [cudnn_partial, flash_partial])
def test_log_sums_on_a_gpu_are_natural(made: Callable[[float], Partial]) -> None:
    query, key, value = (part.cuda() for part in tensors(256, 256, 64, torch.bfloat16))
    lse = made(0.1)(query, key, value, False)[1].reshape(1, 6, 256)
    scores = query.double() @ key.double().repeat_interleave(3, 1).transpose(-1, -2) * 0.1
    assert torch.allclose(lse.double(), scores.logsumexp(-1), atol=2e-2)
