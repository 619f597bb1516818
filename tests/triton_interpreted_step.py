"""A decode step's fused kernels against their twins under the interpreter. test_triton_interpreted.py runs it apart."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import relative_rms
from step_oracle import norm_case, places, rotation_of, step_case

from loopserve_kernels.gated import silu_mul_torch
from loopserve_kernels.gated_triton import silu_mul_triton
from loopserve_kernels.norm import add_rms_norm_torch
from loopserve_kernels.norm_triton import add_rms_norm_triton
from loopserve_kernels.rotate import rotate_torch
from loopserve_kernels.rotate_triton import rotate_triton
from loopserve_kernels.step_write import step_write_torch
from loopserve_kernels.step_write_triton import step_write_triton

TYPES = [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1.5e-2)]


def nan_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher allocates is full of NaN, so that anything it leaves unwritten shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **kind: empty(*shape, **kind).fill_(float("nan")))


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (3, 100), (2, 4096)])
@pytest.mark.parametrize("adds", [False, True])
def test_add_rms_norm(
    adds: bool, rows: int, width: int, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, delta, weight = norm_case(rows, width, dtype)
    delta = delta if adds else None
    total, exact = add_rms_norm_torch(x.double(), None if delta is None else delta.double(), weight.double(), 1e-5)
    nan_filled(monkeypatch)
    ours = add_rms_norm_triton(x, delta, weight, 1e-5)
    for found, wanted in zip(ours, (total, exact), strict=True):
        assert found.dtype == dtype and relative_rms(found, wanted) < bound
    if not adds:
        assert ours[0] is x


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 7), (3, 1500)])
def test_silu_mul(rows: int, width: int, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    both = torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(1)).to(dtype) * 4
    exact = silu_mul_torch(*both.double().chunk(2, 1))
    nan_filled(monkeypatch)
    assert relative_rms(silu_mul_triton(*both.chunk(2, 1)), exact) < bound


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(("size", "turned"), [(64, 64), (80, 80), (96, 40), (128, 128)])
@pytest.mark.parametrize("normed", [False, True])
def test_rotate(
    normed: bool, size: int, turned: int, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(size)
    product = torch.randn(5, (6 + 2 + 2) * size, generator=generator).to(dtype)
    query, key = product[:, : 6 * size].unflatten(1, (6, size)), product[:, 6 * size : 8 * size].unflatten(1, (2, size))
    rotation = rotation_of(5, size, turned, dtype, normed)
    exact = rotate_torch(query.double(), key.double(), rotation_of(5, size, turned, torch.float64, normed, dtype))
    nan_filled(monkeypatch)
    for ours, wanted in zip(rotate_triton(query, key, rotation), exact, strict=True):
        assert ours.shape == wanted.shape and relative_rms(ours, wanted) < bound


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(("size", "turned"), [(64, 0), (80, 40), (128, 128)])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("working", [False, True])
def test_step_write(working: bool, ring: bool, size: int, turned: int, dtype: torch.dtype, bound: float) -> None:
    """The twin and the kernel leave the same bytes where nothing is turned, and write the same rows where it is."""
    token = step_case(6, 2, size, dtype)
    rotation = rotation_of(1, size, turned, dtype, normed=ring) if turned else None
    ours, twins = places(6, 2, size, dtype, ring, working), places(6, 2, size, dtype, ring, working)
    out = step_write_triton(*token, *ours, rotation)
    exact = step_write_torch(*token, *twins, rotation)
    assert out.shape == exact.shape and relative_rms(out, exact) < bound
    for place, twin in zip(ours, twins, strict=True):
        for one, other in zip(place or (), twin or (), strict=True):
            written = ~other.isnan()
            assert torch.equal(one.isnan(), other.isnan()), "another row was written"
            if turned and one.is_floating_point():
                assert relative_rms(one[written], other[written]) < bound
            else:
                assert torch.equal(one[written], other[written])
