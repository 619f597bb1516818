"""Decode steps: captured ones give the eager path's tokens, and no step allocates by the dialogue's length."""

from __future__ import annotations

import warnings
from random import Random
from typing import Any

import pytest
import tiny
import torch
from recorded_step import RecordedCapture
from test_engine import run, some_ids
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine import decoding, page_choice, working_set
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.stepper import CudaCapture, Stepper
from loopserve_cli.profile import load_profile

PROFILES = ("full", "loopserve", "snapkv", "adakv", "streaming-llm", "h2o", "quest", "expected-attention")


def unread_lengths(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """Decode attention that never reads a length on the host, as the kernel does on a GPU."""
    groups, capacity = key.shape[:2]
    rows = query.unflatten(0, (groups, -1)).double()
    unheld = torch.arange(capacity) >= lengths[:, None]
    scores = (rows @ key.double().transpose(1, 2) * scaling).masked_fill(unheld[:, None], float("-inf"))
    held = value.double().masked_fill(unheld[:, :, None], 0.0)
    return (scores.softmax(-1) @ held).flatten(0, 1).to(query.dtype)


def uncounted(
    store_key: Tensor, store_value: Tensor, index: Tensor, count: Tensor, out_key: Tensor, out_value: Tensor
) -> None:
    """Gathering that never reads a count on the host, as the kernel does on a GPU."""
    width = index.shape[1]
    held = (torch.arange(width) < count[:, None])[:, :, None]
    place = index.long().clamp(max=store_key.shape[1] - 1)[:, :, None].expand(-1, -1, store_key.shape[2])
    for store, out in ((store_key, out_key), (store_value, out_value)):
        out[:, :width] = torch.where(held, store.gather(1, place), out[:, :width])


@pytest.fixture
def gpu_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_choice, "gather_keys", uncounted)
    monkeypatch.setattr(decoding, "decode_attention", unread_lengths)
    monkeypatch.setattr(working_set, "decode_attention", unread_lengths)
    monkeypatch.setattr(RecordedCapture, "made", 0)


def engine_of(profile: str, capture: Any, kind: str = "llama") -> Engine:
    changes = [] if profile == "full" else ["keep.budget=24"]
    changes += ["keep.interval=5", "keep.recent=4"] if profile == "loopserve" else []
    changes += ["keep.page=4", "keep.dense_layers=0"] if profile == "quest" else []
    engine = Engine(tiny.loaded(kind), load_profile(profile).with_overrides(changes))
    captured(engine, capture)
    return engine


def captured(engine: Engine, capture: Any) -> None:
    """Have the engine's steps captured by `capture`, also after it has begun anew."""
    engine._stepper = Stepper(engine.model, engine._store, torch.device("cpu"), capture)


@pytest.mark.usefixtures("gpu_like")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_replayed_steps_give_the_eager_paths_tokens_over_turns(kind: str, profile: str) -> None:
    eager, replayed = (engine_of(profile, capture, kind) for capture in (None, RecordedCapture))
    capacities = set()
    for turn, tokens in enumerate((30, 3, 40, 25)):
        ids = some_ids(50 + turn, seed=turn)
        expected, record = run(eager, ids, max_new_tokens=tokens)
        got, ours = run(replayed, ids, max_new_tokens=tokens)
        assert got == expected
        assert (ours.keys_read, ours.reselections) == (record.keys_read, record.reselections)
        assert record.graph_replays == 0
        # At most the first step in each of two states is eager, and the buffers of one turn do not move.
        assert ours.graph_replays is not None and ours.graph_replays >= (len(got) - 1) - 2
        capacities.add(replayed._store.layers[0].capacity)
    assert 1 <= RecordedCapture.made <= 2 * len(capacities)


@pytest.mark.usefixtures("gpu_like")
def test_a_store_that_grows_is_captured_again() -> None:
    eager, replayed = (engine_of("full", capture) for capture in (None, RecordedCapture))
    for turn in range(3):
        ids = some_ids(250, seed=turn)
        assert run(replayed, ids, max_new_tokens=20)[0] == run(eager, ids, max_new_tokens=20)[0]
    assert RecordedCapture.made == 3


@pytest.mark.usefixtures("gpu_like")
@pytest.mark.parametrize("seed", range(3))
def test_rewinding_between_replays_leaves_no_trace(seed: int) -> None:
    rng = Random(seed)
    straight, astray = (engine_of("loopserve", capture) for capture in (None, RecordedCapture))
    for step in range(4):
        held = len(astray.tokens)
        run(astray, some_ids(rng.randrange(1, 40), seed=90 + step), max_new_tokens=rng.randrange(2, 20))
        astray.rewind(rng.randrange(held, len(astray.tokens) + 1))
        astray.rewind(held)
        ids, tokens = some_ids(40, seed=step), rng.randrange(2, 30)
        assert run(astray, ids, max_new_tokens=tokens)[0] == run(straight, ids, max_new_tokens=tokens)[0]


@pytest.mark.usefixtures("gpu_like")
def test_after_reset_and_after_another_profile_nothing_old_is_replayed() -> None:
    eager, replayed = (engine_of("full", capture) for capture in (None, RecordedCapture))
    for change in ("reset", "snapkv", "full"):
        for engine in (eager, replayed):
            if change == "reset":
                engine.reset()
            else:
                engine.set_profile(load_profile(change).with_overrides([] if change == "full" else ["keep.budget=24"]))
        captured(replayed, RecordedCapture)
        ids = some_ids(60, seed=1)
        assert run(replayed, ids, max_new_tokens=12)[0] == run(eager, ids, max_new_tokens=12)[0]


@pytest.mark.usefixtures("gpu_like")
@pytest.mark.parametrize("kind", ["gemma2", "mistral"])
def test_layers_that_need_more_than_plain_attention_are_never_captured(kind: str) -> None:
    engine = engine_of("loopserve", RecordedCapture, kind)
    got, record = run(engine, some_ids(60), max_new_tokens=20)
    assert got == run(engine_of("loopserve", None, kind), some_ids(60), max_new_tokens=20)[0]
    assert (record.graph_replays, RecordedCapture.made) == (0, 0)


def test_a_step_that_waits_for_the_device_goes_on_eagerly_and_says_why() -> None:
    engine = engine_of("full", RecordedCapture)  # the CPU's own kernel reads its lengths on the host
    got, record = run(engine, some_ids(60), max_new_tokens=12)
    assert got == run(engine_of("full", None), some_ids(60), max_new_tokens=12)[0]
    assert record.graph_replays == 0
    assert record.graph_refusal is not None and "not permitted" in record.graph_refusal


class Waiting(RecordedCapture):
    @staticmethod
    def rehearse(step: Any) -> tuple[Tensor, str | None]:
        return step(), "called a synchronizing operation"


@pytest.mark.usefixtures("gpu_like")
def test_a_rehearsal_that_waited_is_never_captured_not_even_after_a_reset() -> None:
    engine = engine_of("full", Waiting)
    got, record = run(engine, some_ids(60), max_new_tokens=12)
    assert got == run(engine_of("full", None), some_ids(60), max_new_tokens=12)[0]
    assert (record.graph_replays, record.graph_refusal) == (0, "called a synchronizing operation")
    engine.reset()
    assert run(engine, some_ids(60), max_new_tokens=12)[1].graph_refusal == "called a synchronizing operation"
    assert Waiting.made == 0


class Largest(TorchDispatchMode):
    """The largest tensor that came into being, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in known:
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"quest"}))  # whose choice is part of the step
def test_a_step_makes_nothing_that_grows_with_the_dialogue_or_the_budget(profile: str) -> None:
    largest = []
    for length, budget in ((200, 24), (3000, 240)):
        changes = [] if profile == "full" else [f"keep.budget={budget}"]
        engine = Engine(tiny.loaded("llama"), load_profile(profile).with_overrides(changes))
        turn = engine.turn(some_ids(length), SamplingOptions(max_new_tokens=40))
        tokens = (event for event in turn if isinstance(event, Token))
        for _ in range(20):  # past the first choice
            next(tokens)
        watch = Largest()
        with watch:
            for _ in range(10):
                next(tokens)
        largest.append(watch.elements)
    assert largest[0] == largest[1] == 1024  # the logits


@pytest.mark.parametrize("waits", [False, True])
def test_looking_for_waits_shows_nothing_of_it_and_hides_nothing_else(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch does it: setting the mode warns that it is a prototype, and naming synchronizing operations in that."""
    modes: list[object] = []

    def set_mode(mode: object) -> None:
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all synchronizing "
                      "operations", stacklevel=2)  # fmt: skip

    def step() -> Tensor:
        warnings.warn("a model's own warning", stacklevel=2)
        if waits:
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at x.cpp:1)", stacklevel=2)
        return torch.ones(1, 3)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        logits, refusal = CudaCapture.rehearse(step)
    assert [str(one.message) for one in told] == ["a model's own warning"]
    assert refusal == ("called a synchronizing CUDA operation" if waits else None)
    assert modes == ["warn", 0] and torch.equal(logits, torch.ones(1, 3))
