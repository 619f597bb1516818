"""Line mass against weights written out in float64, and the sampled rows it is taken from."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import exact_weights, relative_rms, tensors
from torch import Tensor

from loopserve_kernels.lines import line_mass
from loopserve_kernels.rows import sample_rows, sample_size


def masses_by_hand(weights: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Vertical and slash masses [H, N], cell by cell."""
    heads, _, keys = weights.shape
    slash = torch.zeros(heads, keys, dtype=torch.float64)
    for i, position in enumerate(positions.tolist()):
        for key in range(position + 1):
            slash[:, position - key] += weights[:, i, key]
    return weights.sum(1), slash


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("count", "keys"), [(1, 1), (1, 9), (5, 60), (16, 97)])
def test_line_mass_equals_brute_force(count: int, keys: int, dtype: torch.dtype, bound: float) -> None:
    rows, key, _ = tensors(6, 2, count, keys, 16, dtype)
    positions = torch.randperm(keys)[:count].sort().values
    weights = exact_weights(rows, positions, key, 0.3)
    vertical, slash = masses_by_hand(weights, positions)
    mass = line_mass(rows, positions, key, 0.3)
    assert relative_rms(mass.vertical, vertical) < bound
    assert relative_rms(mass.slash, slash) < bound
    assert torch.allclose(mass.vertical.sum(1).double(), torch.full((6,), float(count)).double(), atol=1e-3)
    grouped = line_mass(rows, positions, key, 0.3, share="group")
    assert relative_rms(grouped.vertical, vertical.reshape(2, 3, -1).mean(1)) < bound
    assert relative_rms(grouped.slash, slash.reshape(2, 3, -1).mean(1)) < bound


def test_lse_is_the_rows_log_sum_exp() -> None:
    rows, key, _ = tensors(2, 1, 3, 20, 16, torch.float64)
    positions = torch.tensor([0, 7, 19])
    mass = line_mass(rows, positions, key, 0.3)
    for i, position in enumerate(positions.tolist()):
        scores = rows[:, i] @ key[0, : position + 1].T * 0.3
        assert torch.allclose(mass.lse[:, i], scores.logsumexp(-1))


def test_half_sums_keep_the_tail() -> None:
    """16 bits would lose what thousands of small weights add up to."""
    rows, keys = torch.zeros(1, 64, 16, dtype=torch.float16), torch.zeros(1, 5000, 16, dtype=torch.float16)
    mass = line_mass(rows, torch.arange(4936, 5000), keys, 1.0)
    assert mass.vertical.dtype == torch.float32
    assert float(mass.vertical.sum()) == pytest.approx(64, abs=1e-3)


@pytest.mark.parametrize("new", [1, 3, 16, 17, 100, 129, 512, 5000])
def test_sampled_rows_are_spread_and_end_with_the_tail(new: int) -> None:
    rows = sample_rows(new)
    assert rows.shape[0] == sample_size(new)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert int(rows[-1]) == new - 1 and int(rows[0]) >= 0
    if new >= 512:
        assert rows.shape[0] == 64
        assert int(rows.diff().max()) <= new // 8, "no eighth of the input goes unseen"
        assert rows[-8:].tolist() == list(range(new - 8, new))


def test_sample_size_is_an_eighth_within_bounds() -> None:
    assert [sample_size(new) for new in (5, 16, 100, 128, 200, 512, 9000)] == [5, 16, 16, 16, 25, 64, 64]


def test_a_sample_of_another_length_is_refused() -> None:
    rows, key, _ = tensors(2, 1, 3, 20, 16)
    with pytest.raises(AssertionError):
        line_mass(rows, torch.arange(4), key, 0.3)
    with pytest.raises(AssertionError):
        line_mass(rows, torch.arange(3), key, 0.3, share="layer")
