"""Keys in eight bits: their mass against float64, what a store appends and takes back, and when they are not used."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from attention_oracle import relative_rms
from decode_oracle import exact_mass, ring
from test_engine import run, some_ids
from torch import Tensor

from loopserve_cli.engine import coding
from loopserve_cli.engine.coding import codes_gain
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.store import Store
from loopserve_cli.profile import load_profile
from loopserve_kernels import key_codes
from loopserve_kernels.key_codes import KeyCodes, Scratch
from loopserve_kernels.key_mass import key_mass

SHAPES = [(6, 2, 1, 9), (4, 4, 5, 60), (8, 1, 16, 97), (14, 2, 32, 301)]


def coded(key: Tensor) -> KeyCodes:
    """The codes of a layer's keys."""
    codes = KeyCodes(Scratch())
    codes.follow(key)
    return codes


@pytest.mark.parametrize("tile", [32, 4096])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(("heads", "groups", "slots", "keys"), SHAPES)
def test_mass_is_close_to_float64(
    heads: int, groups: int, slots: int, keys: int, pool: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_codes, "TILE", tile)
    query, positions, key = ring(heads, groups, slots, keys)
    out = torch.full((groups, keys), float("nan"))
    assert coded(key).mass(query, positions, 0.1, pool, out)
    assert 0 < relative_rms(out, exact_mass(query, positions, key, 0.1, pool)) < 0.02
    after = int(positions.max()) + 1
    assert torch.equal(out[:, after:], torch.zeros(groups, keys - after))


def test_a_larger_channel_takes_nothing_from_the_others() -> None:
    query, positions, key = ring(6, 2, 4, 80)
    key[:, :, 3] *= 1000
    query[:, :, 3] /= 1000
    out = torch.empty(2, 80)
    assert coded(key).mass(query, positions, 0.1, "mean", out)
    assert relative_rms(out, exact_mass(query, positions, key, 0.1, "mean")) < 0.02


@pytest.mark.parametrize("tile", [16, 4096])
def test_codes_follow_from_the_keys_alone(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appended piece by piece, or taken back from others that were larger: the mass is the same to the bit."""
    monkeypatch.setattr(key_codes, "TILE", tile)
    query, positions, key = ring(6, 2, 4, 80)
    larger = key.clone()
    larger[:, 40:] *= 3
    codes, mass, whole = KeyCodes(Scratch()), torch.empty(2, 80), torch.empty(2, 80)
    assert coded(key).mass(query, positions, 0.1, "mean", whole)
    for piece in (key[:, :1], larger[:, :60]):
        codes.follow(piece)
    codes.rewind(40)
    for end in (50, 80):
        codes.follow(key[:, :end])
    assert codes.mass(query, positions, 0.1, "mean", mass) and torch.equal(mass, whole)
    codes.follow(torch.cat((key, larger[:, 60:]), 1))
    assert codes.length == 100
    codes.rewind(200)
    assert codes.length == 100


@pytest.mark.parametrize("coded_from", [8, 10**6])
def test_a_dialogue_taken_back_goes_on_as_before(coded_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "LEAST_CODED", coded_from)
    monkeypatch.setattr(coding, "codes_gain", lambda size: True)
    small = ["keep.budget=24", "keep.interval=5", "keep.recent=4", "keep.sinks=2"]
    engine = Engine(tiny.loaded("llama"), load_profile("loopserve").with_overrides(small))
    first, _ = run(engine, some_ids(60), max_new_tokens=30)
    held = [layer.codes for layer in engine._store.layers]
    assert all((codes is not None) == (coded_from == 8) for codes in held)
    assert all(codes.length == 60 + 25 for codes in held if codes is not None), "followed at every choice"
    engine.rewind(20)
    run(engine, some_ids(70, seed=5), max_new_tokens=30)
    engine.rewind(0)
    assert run(engine, some_ids(60), max_new_tokens=30)[0] == first


def test_a_query_out_of_reach_is_judged_in_full() -> None:
    """Its largest logit lies hundreds above those of the newest keys."""
    query, positions, key = torch.ones(2, 1, 8), torch.tensor([99]), torch.full((1, 100, 8), -20.0)
    key[:, 5] = 20.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_codes, "TILE", 32)
        assert not coded(key).mass(query, positions, 1.0, "mean", torch.empty(1, 100))
        mass = key_mass(query, positions, key, 1.0, codes=coded(key))
    assert mass[0, 5] == pytest.approx(1)


def filled(length: int) -> Store:
    """A store of two layers of random keys."""
    store = Store(2)
    for layer in store.layers:
        layer.update(torch.randn(1, 2, length, 8), torch.randn(1, 2, length, 8))
    return store


def given(store: Store, layer: int, keys: int = 60) -> KeyCodes | None:
    """What a choice is given of a layer's first keys."""
    held = store.layers[layer]
    return store.coding.of(held, held.all_keys()[0, :, :keys])


def test_a_store_gives_codes_where_they_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "LEAST_CODED", 50)
    asked: list[int] = []

    def gain(size: int) -> bool:
        asked.append(size)
        return True

    monkeypatch.setattr(coding, "codes_gain", gain)
    store = filled(60)
    before = store.host_bytes
    assert given(store, 0, 49) is None and not asked
    codes = given(store, 0)
    assert codes is not None and codes.length == 60
    assert given(store, 1) is not codes and given(store, 0) is codes
    assert asked == [8], "measured once"
    assert store.host_bytes - before == 2 * (2 * (60 + key_codes.TILE) * 8 + 2 * 8 * 4)
    store.rewind(20)
    assert codes.length == 20
    store.reset()
    assert store.layers[0].codes is None

    monkeypatch.setattr(coding, "codes_gain", lambda size: False)
    store = filled(60)
    assert given(store, 0) is None and store.layers[0].codes is None


def test_the_gain_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codes_gain(64) in (True, False)

    def missing(*args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("not implemented")

    monkeypatch.setattr(torch, "_int_mm", missing)
    assert not codes_gain(64)
