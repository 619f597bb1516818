"""The engine on a GPU: captured steps and the host tier give the tokens of eager steps and of the device's tier."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from test_engine import run, some_ids

from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.fused import FusedModel
from loopserve_cli.engine.fused_parts import find_parts
from loopserve_cli.engine.host_tier import TAIL
from loopserve_cli.engine.stepper import Stepper
from loopserve_cli.profile import load_profile

pytestmark = pytest.mark.gpu
PROFILES = ("full", "loopserve", "snapkv", "adakv", "streaming-llm", "h2o", "quest", "expected-attention")
ROW = 2 * 2 * 16 * 4  # bytes of one token's key and value in one layer


def engine_of(profile: str, tier: str = "device", kind: str = "llama") -> Engine:
    made = tiny.loaded(kind)
    on_gpu = replace(made, model=made.model.to("cuda"), device=torch.device("cuda", 0), stop_ids=frozenset())
    changes = [] if profile == "full" else ["keep.budget=24"]
    changes += ["keep.interval=5", "keep.recent=4"] if profile == "loopserve" else []
    changes += ["keep.page=4", "keep.dense_layers=0"] if profile == "quest" else []
    return Engine(on_gpu, load_profile(profile).with_overrides([*changes, f"retain.tier={tier}"]))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_replays_give_the_eager_tokens_over_five_turns_with_a_rewind(kind: str, profile: str) -> None:
    eager, replayed = engine_of(profile, kind=kind), engine_of(profile, kind=kind)
    eager._stepper = Stepper(eager.model, eager._store, torch.device("cuda", 0), None)
    for turn in range(5):
        ids = some_ids(50 + turn, seed=turn)
        expected, _ = run(eager, ids, max_new_tokens=30)
        held = len(replayed.tokens)
        run(replayed, some_ids(20, seed=90 + turn), max_new_tokens=9)
        replayed.rewind(held)
        got, record = run(replayed, ids, max_new_tokens=30)
        assert got == expected
        assert record.graph_refusal is None and record.graph_replays is not None and record.graph_replays >= 25


@pytest.mark.parametrize("profile", ["full", "loopserve"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "phi3"])
def test_the_fused_pass_is_replayed_and_says_what_the_models_own_code_says(kind: str, profile: str) -> None:
    eager, fused = engine_of(profile, kind=kind), engine_of(profile, kind=kind)
    parts = find_parts(fused.model, join=True)
    assert parts is not None
    fused._runtime.runs = fused._prefiller._runs = FusedModel(parts)
    fused._begin_under(fused.profile)
    for turn in range(3):
        ids = some_ids(50 + turn, seed=turn)
        expected, _ = run(eager, ids, max_new_tokens=30)
        got, record = run(fused, ids, max_new_tokens=30)
        assert got == expected
        assert record.graph_refusal is None and record.graph_replays is not None and record.graph_replays >= 25
        assert record.step_kernels == "fused"


@pytest.mark.parametrize("kind", ["gemma2", "mistral"])
def test_windows_decode_eagerly(kind: str) -> None:
    _, record = run(engine_of("loopserve", kind=kind), some_ids(60), max_new_tokens=20)
    assert (record.graph_replays, record.graph_refusal) == (0, None)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_host_tier_gives_the_devices_tokens(profile: str) -> None:
    device, host = engine_of(profile), engine_of(profile, "host")
    for turn in range(5):
        ids = some_ids(300, seed=turn)
        expected, _ = run(device, ids, max_new_tokens=TAIL + 9)
        held = len(host.tokens)
        run(host, some_ids(20, seed=90 + turn), max_new_tokens=9)
        host.rewind(held)
        assert run(host, ids, max_new_tokens=TAIL + 9)[0] == expected


def test_the_host_tiers_bytes_are_where_the_record_says() -> None:
    engine = engine_of("loopserve", "host")
    _, record = run(engine, some_ids(2000), max_new_tokens=30)
    layers = engine._store.layers
    capacity = layers[0].capacity
    assert record.kv_store_host_bytes == pytest.approx(len(layers) * capacity * ROW, rel=0.01)
    assert record.kv_store_device_bytes == pytest.approx((2 * capacity + len(layers) * TAIL) * ROW, rel=0.01)
    assert all(part.is_pinned() for layer in layers for part in (layer.keys, layer.values))
