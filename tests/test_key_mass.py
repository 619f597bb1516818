"""Key mass against weights written out in float64: rings partly filled, keys ahead, both pools."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import relative_rms
from decode_oracle import exact_mass, ring

from loopserve_kernels.key_mass import key_mass

TYPES = [(torch.float32, 1e-5), (torch.float16, 2e-3)]
SHAPES = [(6, 2, 1, 1), (6, 2, 1, 9), (4, 4, 5, 60), (8, 1, 16, 97), (14, 2, 32, 301)]


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(("heads", "groups", "slots", "keys"), SHAPES)
def test_key_mass_equals_brute_force(
    heads: int, groups: int, slots: int, keys: int, pool: str, dtype: torch.dtype, bound: float
) -> None:
    query, positions, key = ring(heads, groups, slots, keys, dtype=dtype)
    mass = key_mass(query, positions, key, 0.3, pool)
    assert mass.shape == (groups, keys) and mass.dtype == torch.float32
    assert relative_rms(mass, exact_mass(query, positions, key, 0.3, pool)) < bound
    if pool == "mean":
        assert torch.allclose(mass.sum(1), torch.ones(groups), atol=1e-4), "what every query gives adds up to one"


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("used", [1, 3, 7])
def test_unused_slots_and_keys_ahead_weigh_nothing(used: int, pool: str) -> None:
    query, positions, key = ring(6, 2, 7, 80)
    exact = exact_mass(query[:, :used], positions[:used], key, 0.3, pool)
    query = query.contiguous()
    query[:, used:], positions[used:] = float("nan"), 10**6
    room = torch.full((2, 100, 64), float("nan"))
    room[:, :80] = key
    mass = key_mass(query, positions, room, 0.3, pool, torch.tensor(used, dtype=torch.int32))
    assert relative_rms(mass[:, :80], exact) < 1e-5
    assert torch.equal(mass[:, int(positions[used - 1]) + 1 :], torch.zeros(2, 99 - int(positions[used - 1])))


def test_positions_in_any_order() -> None:
    """A ring that wrapped around holds its newest query anywhere."""
    query, positions, key = ring(4, 2, 5, 40)
    turn = torch.tensor([3, 4, 0, 1, 2])
    assert torch.allclose(
        key_mass(query[:, turn], positions[turn], key, 0.3), key_mass(query, positions, key, 0.3), atol=1e-7
    )


def test_what_does_not_fit_is_refused() -> None:
    query, positions, key = ring(4, 2, 5, 40)
    with pytest.raises(AssertionError):
        key_mass(query, positions[:4], key, 0.3)
    with pytest.raises(AssertionError, match="median"):
        key_mass(query, positions, key, 0.3, "median")
    for used in (0, 6):
        with pytest.raises(AssertionError, match="of 5 ring slots"):
            key_mass(query, positions, key, 0.3, "mean", torch.tensor(used, dtype=torch.int32))


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), [*TYPES, (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("heads", "groups", "slots", "keys"), [*SHAPES, (32, 8, 16, 20011)])
def test_triton_on_a_gpu(
    heads: int, groups: int, slots: int, keys: int, size: int, pool: str, dtype: torch.dtype, bound: float
) -> None:
    given = [part.cuda() for part in ring(heads, groups, slots, keys, size, dtype)]
    used = torch.tensor([max(1, slots - 2)], dtype=torch.int32, device="cuda")
    mass = key_mass(*given, 0.1, pool, used)
    query, positions, key = (part.cpu() for part in given)
    exact = exact_mass(query[:, : int(used)], positions[: int(used)], key, 0.1, pool)
    assert relative_rms(mass.cpu(), exact) < bound
    assert torch.equal(mass, key_mass(*given, 0.1, pool, used))


@pytest.mark.gpu
def test_a_captured_graph_replays_with_other_positions_and_counts() -> None:
    query, positions, key = (part.cuda() for part in ring(8, 2, 16, 500))
    used = torch.tensor([16], dtype=torch.int32, device="cuda")
    key_mass(query, positions, key, 0.1, "mean", used)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mass = key_mass(query, positions, key, 0.1, "mean", used)
    positions.sub_(100)
    used.fill_(5)
    graph.replay()
    exact = exact_mass(query.cpu()[:, :5], positions.cpu()[:5], key.cpu(), 0.1, "mean")
    assert relative_rms(mass.cpu(), exact) < 1e-5
