"""A given answer decoded as generation would have: the same steps, and nothing of it left."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from recorded_step import RecordedCapture
from test_aside import assert_same, state
from test_engine import run, some_ids
from test_length_dependence import TRAINED, made
from test_stepper import gpu_like  # noqa: F401
from test_tiers import PROFILES, engine_of
from torch import Tensor

from loopserve_cli.engine import engine as engine_module
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.forcing import AnswerStart
from loopserve_cli.engine.stepper import Stepper

UNEVEN = ("full", "adakv", "quest")


def forced(engine: Engine, ids: list[int]) -> list[Tensor]:
    """The logits [V] before every token of `ids`, as the answer of the turn that just ended."""
    seen: list[Tensor] = []
    assert engine.force(ids, lambda logits: seen.append(logits[0].clone())) == len(ids)
    return seen


def two_turns(engine: Engine, new: int = 40) -> list[int]:
    engine.keeps_start = True
    run(engine, some_ids(60), max_new_tokens=20)
    return run(engine, some_ids(50, seed=1), max_new_tokens=new)[0]


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
@pytest.mark.parametrize("profile", PROFILES)
def test_its_own_answer_is_most_likely_at_every_place(profile: str, tier: str) -> None:
    if tier == "evict" and profile in UNEVEN:
        pytest.skip("needs the same number of keys in every head, once a turn")
    engine = engine_of(profile, tier)
    answer = two_turns(engine)
    before = state(engine)
    assert [int(row.argmax()) for row in forced(engine, answer)] == answer
    assert_same(before, state(engine))


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_of_every_architecture(kind: str) -> None:
    engine = engine_of("snapkv", "device", kind)
    answer = two_turns(engine)
    assert [int(row.argmax()) for row in forced(engine, answer)] == answer


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
def test_the_turns_after_it_are_what_they_would_have_been(tier: str) -> None:
    engine, straight = engine_of("loopserve", tier), engine_of("loopserve", tier)
    for one in (engine, straight):
        two_turns(one)
    forced(engine, some_ids(90, seed=5))  # longer than the answer, and another one
    for seed in (2, 3):
        expected, theirs = run(straight, some_ids(30, seed=seed), max_new_tokens=30)
        got, ours = run(engine, some_ids(30, seed=seed), max_new_tokens=30)
        assert got == expected
        assert (ours.keys_read, ours.keys_stored) == (theirs.keys_read, theirs.keys_stored)


@pytest.mark.usefixtures("gpu_like")
@pytest.mark.parametrize("profile", ["full", "loopserve", "snapkv"])
def test_captured_steps_see_what_eager_ones_see(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = some_ids(40, seed=7)
    eager = engine_of(profile, "device")
    two_turns(eager)

    def recorded(model: Any, store: Any, device: Any, capture: Any, refusal: str | None = None) -> Stepper:
        return Stepper(model, store, device, RecordedCapture, refusal)

    monkeypatch.setattr(engine_module, "Stepper", recorded)
    captured = engine_of(profile, "device")
    two_turns(captured)
    made = RecordedCapture.made
    for one, theirs in zip(forced(captured, other), forced(eager, other), strict=True):
        torch.testing.assert_close(one, theirs)
    assert RecordedCapture.made > made


def test_what_a_policy_judges_by_is_what_the_prefill_showed() -> None:
    engine = engine_of("snapkv", "device")
    answer = two_turns(engine, new=60)  # more than the ring holds
    start = engine.start
    assert start is not None
    last = {number: int(one.ring.newest()[1].max()) for number, one in start.observations.items()}
    assert last and set(last.values()) == {start.tokens - 1}
    assert start.tokens == len(engine.tokens) - len(answer) + 1
    blind = AnswerStart(start.tokens, start.logits, {}, start.captures)
    rows = forced(engine, answer)
    engine.start = blind  # without it everything is read
    assert any(not torch.equal(one, other) for one, other in zip(rows, forced(engine, answer), strict=True))


def test_positions_that_change_with_the_length() -> None:
    for crosses in (False, True):
        engine, _ = made("longrope")
        engine.keeps_start = True
        run(engine, some_ids(TRAINED - 10), max_new_tokens=40 if crosses else 5)
        before, seen = state(engine), []
        # The step that would make all keys stale is not made; where the answer made it, the turn's start is gone.
        assert engine.force(some_ids(30, seed=3), seen.append) == len(seen) == (0 if crosses else 11)
        assert_same(before, state(engine))


def test_nothing_is_noted_unless_it_is_asked_for() -> None:
    engine = engine_of("snapkv", "device")
    run(engine, some_ids(60), max_new_tokens=5)
    assert engine.start is None
