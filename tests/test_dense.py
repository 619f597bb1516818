"""Dense attention against float64, on odd shapes and strides, with what only explicit scores can do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loopserve_kernels.dense import dense_attention, masked_attention


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
