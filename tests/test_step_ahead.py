"""The next step is launched before its token is handed out, and is let go without a trace where nobody wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hand_clock import NOTHING_MS, in_hand
from recorded_step import RecordedCapture
from test_engine import run, some_ids
from test_stepper import engine_of, gpu_like  # noqa: F401

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.engine.sampling import Reader
from loopserve_cli.stats import TurnRecord
from loopserve_cli.timers import Stopwatch

pytestmark = pytest.mark.usefixtures("gpu_like")
PROFILES = ("full", "loopserve", "snapkv", "adakv", "h2o", "quest", "expected-attention")


class Noted(RecordedCapture):
    """Counts replays."""

    replays = 0

    def replay(self) -> Any:
        type(self).replays += 1
        return super().replay()


@pytest.fixture(autouse=True)
def none_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noted, "replays", 0)


def warmed(profile: str) -> Engine:
    """An engine whose steps are captured: the second turn replays from its first step on."""
    engine = engine_of(profile, Noted)
    run(engine, some_ids(60), max_new_tokens=14)
    Noted.replays = 0
    return engine


def launched_when_handed_out(engine: Engine, count: int) -> list[int]:
    """After each token of an answer, how many replays there were when it came."""
    turn = engine.turn(some_ids(20, seed=1), SamplingOptions(max_new_tokens=count))
    return [Noted.replays for event in turn if isinstance(event, Token)]


def test_the_next_step_runs_when_a_token_comes_but_for_the_first_and_the_last() -> None:
    assert launched_when_handed_out(warmed("full"), 8) == [0, 2, 3, 4, 5, 6, 7, 7]


def test_where_keys_are_chosen_first_the_step_waits_for_its_token() -> None:
    # Every fifth step chooses: the first, which reads everything, and then those after the tokens 6, 11, 16.
    assert launched_when_handed_out(warmed("loopserve"), 13) == [0, 2, 3, 4, 5, 5, 7, 8, 9, 10, 10, 12, 12]


def test_a_stop_token_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, plain = warmed("full"), warmed("full")
    answer, _ = run(plain, some_ids(20, seed=1), max_new_tokens=9)
    stop = next(place for place in range(3, 9) if answer[place] not in answer[:place])
    monkeypatch.setattr(engine._runtime, "stop_ids", frozenset({answer[stop]}))
    Noted.replays = 0
    got, record = run(engine, some_ids(20, seed=1), max_new_tokens=9)
    assert (got, record.finish_reason) == (answer[: stop + 1], "stop")
    assert Noted.replays == record.graph_replays == stop


def stopped(engine: Engine, how: str, after: int) -> TurnRecord | None:
    """One turn that ends after so many tokens, in one of the ways in which a reader ends it."""
    seen: list[int] = []
    cancelled: Callable[[], bool] = (lambda: len(seen) == after) if how == "cancelled" else (lambda: False)
    turn = engine.turn(some_ids(20, seed=1), SamplingOptions(max_new_tokens=30), cancelled)
    for event in turn:
        if isinstance(event, TurnDone):
            return event.record
        if isinstance(event, Token):
            seen.append(event.id)
        if len(seen) == after and how == "closed":
            turn.close()  # type: ignore[attr-defined]
            return None
        if len(seen) == after and how == "Ctrl-C":
            with pytest.raises(KeyboardInterrupt):
                turn.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
            return None
    raise AssertionError("the turn did not end")


def held(engine: Engine) -> list[torch.Tensor]:
    return [part.clone() for layer in engine._store.layers for part in layer.rows()]


@pytest.mark.parametrize("after", [1, 4, 6])
@pytest.mark.parametrize("how", ["cancelled", "closed", "Ctrl-C"])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_turn_that_ends_while_a_step_runs_leaves_what_was_there_before_it(profile: str, how: str, after: int) -> None:
    eager, replayed = engine_of(profile, None), warmed(profile)
    run(eager, some_ids(60), max_new_tokens=14)
    records = [stopped(engine, how, after) for engine in (eager, replayed)]
    assert Noted.replays >= after - 1
    if how == "cancelled":
        expected, record = records
        assert expected is not None and record is not None
        assert (record.finish_reason, record.tokens_output) == ("cancelled", after)
        assert (record.keys_read, record.reselections) == (expected.keys_read, expected.reselections)
        assert record.graph_replays is not None and record.graph_replays <= after - 1
    assert replayed.tokens == eager.tokens and not replayed._store.stepping
    assert len(replayed.tokens) == replayed._store.get_seq_length() == 60 + 13 + 20 + after - 1
    for ours, theirs in zip(held(replayed), held(eager), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for seed in (7, 8):
        got = run(replayed, some_ids(15, seed=seed), max_new_tokens=20)[0]
        assert got == run(eager, some_ids(15, seed=seed), max_new_tokens=20)[0]


def test_after_a_cancelled_turn_it_can_go_back_and_feed() -> None:
    eager, replayed = engine_of("loopserve", None), warmed("loopserve")
    run(eager, some_ids(60), max_new_tokens=14)
    for engine in (eager, replayed):
        before = len(engine.tokens)
        stopped(engine, "closed", 4)
        engine.rewind(before)
        engine.feed(some_ids(9, seed=3))
    assert run(replayed, some_ids(5), max_new_tokens=20)[0] == run(eager, some_ids(5), max_new_tokens=20)[0]


def test_a_tier_that_evicts_runs_no_step_ahead() -> None:
    engine = engine_of("snapkv", None)
    engine.set_profile(engine.profile.with_overrides(["retain.tier=evict"]))
    run(engine, some_ids(60), max_new_tokens=5)
    assert not engine._state.decode.steady


@pytest.mark.parametrize("options", [{"temperature": 0.9, "top_p": 0.9, "seed": 4}, {"repetition_penalty": 1.3}])
def test_tokens_that_are_drawn_outside_of_the_graph_are_the_same(options: dict[str, Any]) -> None:
    eager, replayed = engine_of("loopserve", None), engine_of("loopserve", Noted)
    for turn in range(3):
        ids = some_ids(40, seed=turn)
        expected, _ = run(eager, ids, max_new_tokens=30, **options)
        got, record = run(replayed, ids, max_new_tokens=30, **options)
        assert got == expected
    assert record.graph_replays == len(got) - 1


def test_the_host_waits_once_per_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number is read, no figure of the host goes to the device, and no stamp waits for the device."""
    engine = warmed("full")
    read: list[int] = []
    waits: list[str] = []
    number, ms, tensor = Reader.number, Stopwatch.ms, torch.tensor
    monkeypatch.setattr(Reader, "number", lambda self, token: read.append(1) or number(self, token))
    monkeypatch.setattr(Stopwatch, "ms", lambda self: waits.append("stamp") or ms(self))
    monkeypatch.setattr(torch, "tensor", lambda *given, **kind: waits.append("copy") or tensor(*given, **kind))
    turn = engine.turn(some_ids(20, seed=1), SamplingOptions(max_new_tokens=20))
    tokens = (event for event in turn if isinstance(event, Token))
    for _ in range(3):
        next(tokens)
    read.clear()
    waits.clear()
    for _ in range(10):
        next(tokens)
    assert len(read) == 10 and waits == []


def test_a_step_that_runs_while_the_reader_draws_counts_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, clock = warmed("full"), in_hand(monkeypatch)
    for event in engine.turn(some_ids(20, seed=1), SamplingOptions(max_new_tokens=5)):
        if isinstance(event, Token):
            clock.tick()
        elif isinstance(event, TurnDone):
            record = event.record
    # The device worked while the reader drew all but the first.
    assert record.itl_ms == pytest.approx([0, 62.5, 62.5, 62.5], abs=NOTHING_MS)
    assert record.tpot_ms == pytest.approx((record.e2e_ms - record.ttft_ms) / 4)
