"""Kernels over 131,072 keys, as many as the longest dialogues have, against float64 for a few heads.

A GPU runs them at that length. A CPU runs the same tests at one at which its paths do what they do for any other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from attention_oracle import exact_weights, relative_rms, tensors
from decode_oracle import exact_decode, exact_mass, ring, working_set

from loopserve_kernels.choice import choose_lines
from loopserve_kernels.decode import decode_attention
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.lines import line_mass
from loopserve_kernels.rules import Rules

PLACES = [("cpu", 5003), pytest.param("cuda", 131072, marks=pytest.mark.gpu)]
TYPES = [(torch.float32, 1e-5), (torch.bfloat16, 1.5e-2)]
# What 14 workers may each take of an 80 GB card, with room to spare.
MOST_BYTES = 3 << 30


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Nothing of size N^2, nor anything else that 14 workers could not hold at once."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    yield
    if torch.cuda.is_available():
        assert torch.cuda.max_memory_allocated() < MOST_BYTES


@pytest.mark.parametrize(("device", "keys"), PLACES)
@pytest.mark.parametrize(("dtype", "bound"), TYPES)
def test_decode_attention(device: str, keys: int, dtype: torch.dtype, bound: float) -> None:
    given = working_set(8, [keys, keys - 77], 128, dtype)
    out = decode_attention(*(part.to(device) for part in given), 0.1)
    assert relative_rms(out.cpu(), exact_decode(*given, 0.1)) < bound


@pytest.mark.parametrize(("device", "keys"), PLACES)
@pytest.mark.parametrize(("dtype", "bound"), TYPES)
def test_key_mass(device: str, keys: int, dtype: torch.dtype, bound: float) -> None:
    query, positions, key = ring(8, 2, 16, keys, 128, dtype)
    given = [part.to(device) for part in (query, positions, key)]
    mass = key_mass(*given, 0.1)
    assert relative_rms(mass.cpu(), exact_mass(query, positions, key, 0.1, "mean")) < bound
    assert torch.equal(mass, key_mass(*given, 0.1)), "repeated runs agree to the bit"


@pytest.mark.parametrize(("device", "keys"), PLACES)
@pytest.mark.parametrize(("dtype", "bound"), TYPES)
def test_line_mass(device: str, keys: int, dtype: torch.dtype, bound: float) -> None:
    rows, key, _ = tensors(4, 2, 20, keys, 128, dtype)
    positions = torch.linspace(keys // 2, keys - 1, 20).long()
    given = (rows.to(device), positions.to(device), key.to(device))
    mass = line_mass(*given, 0.1)
    exact = exact_weights(rows, positions, key, 0.1)
    offset = (positions[:, None] - torch.arange(keys)).clamp_min(0)  # weights after a row's position are 0
    slash = torch.zeros(4, keys, dtype=torch.float64).index_add_(1, offset.flatten(), exact.flatten(1))
    assert relative_rms(mass.vertical.cpu(), exact.sum(1)) < bound
    assert relative_rms(mass.slash.cpu(), slash) < bound


@pytest.mark.parametrize(("device", "keys"), PLACES)
def test_lines_that_stand_out_are_chosen(device: str, keys: int) -> None:
    """Rows that look at a few keys: those, wherever they stand, are among the few lines that are chosen."""
    places = [3, keys // 3, keys - 900]
    generator = torch.Generator().manual_seed(keys)
    rows = torch.randn(2, 64, 128, generator=generator) * 0.01
    key = torch.randn(1, keys, 128, generator=generator) * 0.01
    positions = torch.arange(keys - 64, keys)
    key[:, places, 0] = 40.0
    rows[:, :, 0] = 40.0
    given = (rows.to(device), positions.to(device), key.to(device), 0.1)
    lines = choose_lines(line_mass(*given), *given, Rules(0.9))
    for head in range(2):
        chosen = lines.vertical[head, : int(lines.vertical_count[head])].tolist()
        assert set(places) <= set(chosen) and len(chosen) < 100
    assert float(lines.coverage.min()) >= 0.9
