"""Where the history stays: the host tier answers as the device's does, evict holds what it promises, and the bytes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from random import Random

import pytest
import tiny
import torch
from test_engine import run, some_ids

from loopserve_cli.engine import staging
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.host_tier import TAIL, HostLayer
from loopserve_cli.engine.store_layer import StoreLayer
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.profile import load_profile

LAYERS, GROUPS, SIZE, FP32 = 2, 2, 16, 4
ROW = 2 * GROUPS * SIZE * FP32  # bytes of one token's key and value in one layer
PROFILES = ("full", "loopserve", "snapkv", "adakv", "h2o", "streaming-llm", "quest", "expected-attention")
EVICTING = ("loopserve", "snapkv", "h2o", "streaming-llm", "expected-attention")


def engine_of(profile: str, tier: str, kind: str = "llama", budget: int = 24) -> Engine:
    changes = [] if profile == "full" else [f"keep.budget={budget}"]
    changes += ["keep.interval=5", "keep.recent=4"] if profile == "loopserve" else []
    changes += ["keep.page=4", "keep.dense_layers=0"] if profile == "quest" else []
    endless = replace(tiny.loaded(kind), stop_ids=frozenset())
    return Engine(endless, load_profile(profile).with_overrides([*changes, f"retain.tier={tier}"]))


@pytest.mark.parametrize(("kind", "profile"), tiny.with_profiles(PROFILES))
def test_the_host_tier_gives_the_devices_tokens_over_turns_with_rewinds(kind: str, profile: str) -> None:
    device, host = (engine_of(profile, tier, kind) for tier in ("device", "host"))
    for turn in range(4):
        ids = some_ids(40, seed=turn)
        expected, record = run(device, ids, max_new_tokens=TAIL // 2 + 5)
        held = len(host.tokens)
        run(host, some_ids(30, seed=turn + 50), max_new_tokens=9)
        host.rewind(held + 33)
        host.rewind(held)
        got, ours = run(host, ids, max_new_tokens=TAIL // 2 + 5)
        assert got == expected and host.tokens == device.tokens
        assert (ours.keys_read, ours.keys_stored) == (record.keys_read, record.keys_stored)


@pytest.mark.parametrize("length", [300, 2000])
def test_the_host_tiers_bytes_follow_its_formula(length: int) -> None:
    engine = engine_of("loopserve", "host")
    _, record = run(engine, some_ids(length), max_new_tokens=30)
    layers = engine._store.layers
    capacity = layers[0].capacity
    host = LAYERS * capacity * ROW
    device = (2 * capacity + LAYERS * TAIL) * ROW
    assert sum(part.nbytes for layer in layers for part in (layer.keys, layer.values)) == pytest.approx(host, rel=0.01)
    # Without a GPU all of it lies in the host's memory, and is reported there.
    assert (record.kv_store_device_bytes, record.kv_store_host_bytes) == (0, host + device)
    assert length <= capacity < length + 30 + 256


def test_staging_does_not_grow_with_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    plain = tiny.configuration
    for layers in (2, 6):

        def deeper(kind: str, layers: int = layers) -> object:
            made = plain(kind)
            made.num_hidden_layers = layers
            made.layer_types = ["full_attention"] * layers
            return made

        monkeypatch.setattr(tiny, "configuration", deeper)
        engine = engine_of("loopserve", "host")
        run(engine, some_ids(600), max_new_tokens=20)
        own = [part for layer in engine._store.layers for part in (layer.keys, layer.values, *tails(layer))]
        held.append((engine.kv_bytes - sum(part.nbytes for part in own)) // ROW)
    assert held[0] == held[1] == 2 * engine._store.layers[0].capacity


def tails(layer: object) -> list[torch.Tensor]:
    return [layer.tail_keys, layer.tail_values]  # type: ignore[attr-defined]


def test_changing_the_tier_in_mid_dialogue_keeps_the_history() -> None:
    straight, moving = engine_of("full", "device"), engine_of("full", "device")
    for turn, tier in enumerate(("device", "host", "host", "device")):
        moving.set_profile(load_profile("full").with_overrides([f"retain.tier={tier}"]))
        held = len(moving.tokens)
        assert held == len(straight.tokens)
        ids = some_ids(40, seed=turn)
        assert run(moving, ids, max_new_tokens=12)[0] == run(straight, ids, max_new_tokens=12)[0]
    assert moving.kv_bytes == straight.kv_bytes


def test_going_to_or_from_a_tier_that_evicts_begins_anew() -> None:
    engine = engine_of("snapkv", "device")
    run(engine, some_ids(40), max_new_tokens=5)
    engine.set_profile(load_profile("snapkv").with_overrides(["retain.tier=evict"]))
    assert engine.tokens == [] and engine.kv_bytes == 0
    run(engine, some_ids(40), max_new_tokens=5)
    engine.set_profile(engine.profile)
    assert engine.tokens
    engine.set_profile(load_profile("full"))
    assert engine.tokens == []


@pytest.mark.parametrize("profile", EVICTING)
def test_evict_is_bounded_by_the_budget_over_fifty_turns(profile: str) -> None:
    engine, budget = engine_of(profile, "evict"), 24
    for turn in range(1, 51):
        _, record = run(engine, some_ids(50, seed=turn), max_new_tokens=12)
        open_turn = 50 + 11
        assert record.keys_stored == (turn - 1) * budget + open_turn
        assert record.tokens_logical == turn * 61 + 1 == len(engine.tokens) + 1
    room = engine._store.layers[0].capacity
    assert engine.kv_bytes == LAYERS * room * ROW
    assert room <= 1.5 * (50 * budget + 61) + 256


@pytest.mark.parametrize("profile", EVICTING)
def test_a_budget_that_holds_every_turn_evicts_nothing(profile: str) -> None:
    full, ours = engine_of("full", "device"), engine_of(profile, "evict", budget=4096)
    for turn in range(5):
        ids = some_ids(40, seed=turn)
        assert run(ours, ids, max_new_tokens=12)[0] == run(full, ids, max_new_tokens=12)[0]


@pytest.mark.parametrize("profile", EVICTING)
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_evict_freezes_exactly_what_the_policy_chose_and_frozen_rows_never_change(kind: str, profile: str) -> None:
    engine = engine_of(profile, "evict", kind)
    frozen: list[torch.Tensor] = []
    for turn in range(4):
        run(engine, some_ids(50, seed=turn), max_new_tokens=12)
        keys = engine._store.layers[-1].everything(turn * 24)[0]
        assert len(frozen) == 0 or torch.equal(keys[:, :, : frozen[-1].shape[2]], frozen[-1])
        frozen.append(keys.clone())
    layer = engine._store.layers[-1]
    assert (layer.length, layer.dropped) == (3 * 24 + 61, 4 * 61 - 3 * 24 - 61)


@pytest.mark.parametrize("profile", ["loopserve", "snapkv", "streaming-llm"])
@pytest.mark.parametrize("seed", range(3))
def test_evict_undone_to_the_turns_begin_leaves_no_trace(seed: int, profile: str) -> None:
    rng = Random(seed)
    astray, straight = engine_of(profile, "evict"), engine_of(profile, "evict")
    for step in range(5):
        held = len(astray.tokens)
        for wrong in range(rng.randrange(3)):
            run(astray, some_ids(rng.randrange(1, 60), seed=wrong), max_new_tokens=rng.randrange(1, 12))
            if rng.random() < 0.5:
                astray.rewind(held)
        # Two turns too many are undone into a frozen segment: what the engine still has is fed no more.
        astray.rewind(held)
        assert len(astray.tokens) <= held
        astray.feed(straight.tokens[len(astray.tokens) : held])
        ids = some_ids(rng.randrange(30, 60), seed=100 + step)
        tokens = rng.randrange(17, 25)
        assert run(astray, ids, max_new_tokens=tokens)[0] == run(straight, ids, max_new_tokens=tokens)[0]
        assert astray.tokens == straight.tokens


def test_rewinding_into_a_frozen_segment_returns_to_where_it_began() -> None:
    engine = engine_of("snapkv", "evict")
    lengths = [0]
    for turn in range(3):
        run(engine, some_ids(50, seed=turn), max_new_tokens=12)
        lengths.append(len(engine.tokens))
    engine.rewind(lengths[2] + 5)
    assert len(engine.tokens) == lengths[2] + 5
    engine.rewind(lengths[2])
    assert len(engine.tokens) == lengths[2]
    engine.rewind(lengths[2] - 1)
    assert len(engine.tokens) == lengths[1]
    assert engine._store.layers[0].length == 24 and engine._store.get_seq_length() == lengths[1]


@pytest.mark.parametrize("policy", ["everything", "adakv", "quest"])
def test_a_policy_without_a_fixed_number_of_keys_does_not_evict(policy: str) -> None:
    profile = {"everything": "full"}.get(policy, policy)
    with pytest.raises(UsageError, match=f"retain.tier evict needs .*, not {policy}; choose one of streaming, snapkv"):
        load_profile(profile).with_overrides(["retain.tier=evict"])
    changed = load_profile(profile).with_overrides(["retain.tier=evict", "keep.policy=snapkv"])
    assert changed.retain["tier"] == "evict"


def test_h2o_freezes_rows_of_the_answer_and_none_twice() -> None:
    for prompt, budget in ((30, 40), (50, 24)):
        engine = engine_of("h2o", "evict", budget=budget)
        run(engine, some_ids(prompt), max_new_tokens=31)
        keys = engine._store.layers[0].everything(prompt + 30)[0].clone()
        run(engine, some_ids(5, seed=1), max_new_tokens=2)
        frozen = engine._store.layers[0].everything(budget)[0]
        for head in range(GROUPS):
            places = [int((keys[0, head] == row).all(1).nonzero()[0, 0]) for row in frozen[0, head]]
            assert places == sorted(set(places)) and len(places) == budget
            assert set(range(prompt + 30 - budget // 2, prompt + 30)) <= set(places)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("out of memory")])
def test_what_stops_a_move_between_tiers_leaves_an_empty_dialogue(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, calls = engine_of("full", "device"), []
    run(engine, some_ids(60), max_new_tokens=5)
    real = HostLayer.update

    def second_fails(layer: HostLayer, *states: torch.Tensor) -> object:
        calls.append(layer)
        if len(calls) == 2:
            raise error
        return real(layer, *states)

    with monkeypatch.context() as patched, pytest.raises((KeyboardInterrupt, LoopserveError)):
        patched.setattr(HostLayer, "update", second_fails)
        engine.set_profile(load_profile("full").with_overrides(["retain.tier=host"]))
    assert engine.tokens == [] and engine.profile.retain["tier"] == "device"
    ids = some_ids(60, seed=3)
    assert run(engine, ids, max_new_tokens=8)[0] == run(engine_of("full", "device"), ids, max_new_tokens=8)[0]


def test_layers_with_a_window_keep_every_row() -> None:
    engine = engine_of("snapkv", "evict", "gemma3_text", budget=8)
    for turn in range(3):
        run(engine, some_ids(10, seed=turn), max_new_tokens=8)
    sliding, full = engine._store.layers
    assert (sliding.length, sliding.dropped) == (len(engine.tokens), 0)
    assert full.length == 2 * 8 + 17 and full.length + full.dropped == len(engine.tokens)


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("profile", ["full", "snapkv"])
def test_memory_that_runs_out_anywhere_costs_one_turn(profile: str, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th buffer of a turn cannot be had; the turn after that is as if it had never been tried."""
    straight = engine_of(profile, tier)
    first, second = some_ids(200), some_ids(120, seed=1)
    run(straight, first, max_new_tokens=5)
    expected = run(straight, second, max_new_tokens=70)[0]
    failed = 0
    for number in range(1, 9):
        engine, asked = engine_of(profile, tier), 0
        run(engine, first, max_new_tokens=5)
        held = len(engine.tokens)
        real_empty, real_new = torch.empty, torch.Tensor.new_empty

        def counting(make: object) -> object:
            def made(*args: object, **kwargs: object) -> torch.Tensor:
                nonlocal asked
                asked += 1
                if asked == number:  # noqa: B023
                    raise torch.OutOfMemoryError("out of memory")
                return make(*args, **kwargs)  # type: ignore[operator]

            return made

        with monkeypatch.context() as patched, contextlib.suppress(LoopserveError):
            patched.setattr(torch, "empty", counting(real_empty))
            patched.setattr(torch.Tensor, "new_empty", counting(real_new))
            run(engine, second, max_new_tokens=70)
        failed += asked >= number
        engine.rewind(held)
        assert run(engine, second, max_new_tokens=70)[0] == expected
    assert failed > 2


def test_a_later_turn_brings_every_layer_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("full", "host")
    run(engine, some_ids(60), max_new_tokens=9)
    brought, real = [], staging.copy_rows

    def counted(target: torch.Tensor, source: torch.Tensor) -> None:
        brought.append(target.shape[2])
        real(target, source)

    monkeypatch.setattr(staging, "copy_rows", counted)
    engine.feed(some_ids(30, seed=1))
    assert brought == [68] * 2 * LAYERS


def test_memory_that_runs_out_while_freezing_leaves_the_turn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    straight, ours = engine_of("snapkv", "evict"), engine_of("snapkv", "evict")
    for engine in (straight, ours):
        run(engine, some_ids(60), max_new_tokens=9)
    calls, real = [], StoreLayer.rows_at

    def second_fails(layer: StoreLayer, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(layer)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(layer, index)

    ids = some_ids(30, seed=1)
    with monkeypatch.context() as patched, pytest.raises(LoopserveError, match="compressing the last turn"):
        patched.setattr(StoreLayer, "rows_at", second_fails)
        run(ours, ids, max_new_tokens=9)
    assert [(layer.length, layer.dropped) for layer in ours._store.layers] == [(68, 0)] * LAYERS
    assert run(ours, ids, max_new_tokens=9)[0] == run(straight, ids, max_new_tokens=9)[0]
    assert ours._store.length == straight._store.length == 24 + 38
