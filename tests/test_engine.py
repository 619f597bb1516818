"""The engine's turns: measurement, cancellation, rewind, limits, sampling, stop strings."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest
import tiny
import torch
from hand_clock import NOTHING_MS, TICK, in_hand

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.chunks import PREFILL_CHUNK
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.errors import ContextLimitError, LoopserveError, ModelError
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord


def new_engine(kind: str = "llama") -> Engine:
    return Engine(tiny.loaded(kind), load_profile("full"))


def some_ids(count: int, seed: int = 0) -> list[int]:
    rng = Random(seed)
    return [rng.randrange(6, 1024) for _ in range(count)]


def run(engine: Engine, ids: list[int], **options: Any) -> tuple[list[int], TurnRecord]:
    events = list(engine.turn(ids, SamplingOptions(**options)))
    done = events[-1]
    assert isinstance(done, TurnDone)
    return [e.id for e in events if isinstance(e, Token)], done.record


def test_the_record_follows_its_definitions() -> None:
    engine = new_engine()
    submitted = time.perf_counter()
    events = list(engine.turn(some_ids(50), SamplingOptions(max_new_tokens=6), submitted=submitted))
    wall_ms = (time.perf_counter() - submitted) * 1e3
    record = events[-1].record  # type: ignore[union-attr]
    assert record.tokens_new == 50 and record.tokens_cached == 0
    assert record.tokens_output == 6 and record.finish_reason == "length"
    assert record.tokens_logical == 56
    assert 0 < record.prefill_ms < record.ttft_ms < record.e2e_ms <= wall_ms
    assert len(record.itl_ms) == 5
    assert record.tpot_ms == pytest.approx((record.e2e_ms - record.ttft_ms) / 5)
    assert sum(record.itl_ms) == pytest.approx(record.e2e_ms - record.ttft_ms)
    assert record.kv_store_device_bytes == 0 and record.peak_device_bytes is None
    layers, groups, size, capacity, fp32 = 2, 2, 16, 256, 4
    assert record.kv_store_host_bytes == 2 * layers * groups * size * capacity * fp32


def test_one_token_has_no_time_per_output_token() -> None:
    _, record = run(new_engine(), some_ids(5), max_new_tokens=1)
    assert record.tpot_ms is None and record.decode_tokens_per_s is None and record.itl_ms == []


def test_a_slow_reader_is_in_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, clock = new_engine(), in_hand(monkeypatch)
    turn = engine.turn(some_ids(20), SamplingOptions(max_new_tokens=4))
    for event in turn:
        if not isinstance(event, TurnDone):
            clock.tick()
        else:
            assert event.record.e2e_ms < NOTHING_MS
            assert max(event.record.itl_ms) < NOTHING_MS
    assert clock.now >= (2 + 4) * TICK, "before and after the prefill, and at each token"


def test_chunks_change_nothing_but_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = some_ids(130)
    whole, _ = run(new_engine(), ids, max_new_tokens=8)
    monkeypatch.setitem(PREFILL_CHUNK, "cpu", 32)
    engine = new_engine()
    events = list(engine.turn(ids, SamplingOptions(max_new_tokens=8)))
    assert [(e.done, e.total) for e in events if isinstance(e, PrefillProgress)] == [
        (0, 130),
        (32, 130),
        (64, 130),
        (96, 130),
        (128, 130),
        (130, 130),
    ]
    assert [e.id for e in events if isinstance(e, Token)] == whole


def test_a_turn_over_a_long_history_feeds_only_its_own_tokens() -> None:
    engine = new_engine()
    engine.feed(some_ids(3000))
    _, record = run(engine, some_ids(7, seed=1), max_new_tokens=2)
    assert (record.tokens_new, record.tokens_cached) == (7, 3000)


def test_a_long_answer_that_is_only_allowed_takes_no_memory() -> None:
    engine = new_engine()
    run(engine, some_ids(50), max_new_tokens=3000, stop=("e",), temperature=5.0, seed=1)
    assert len(engine.tokens) < 1000
    assert engine.kv_bytes <= 2 * 2 * 2 * 16 * 4 * 1280


def test_the_repetition_penalty_does_not_read_the_history_at_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, lists = new_engine(), []
    real = torch.tensor

    def counted(data: Any, *rest: Any, **options: Any) -> torch.Tensor:
        lists.append(len(data[0]))
        return real(data, *rest, **options)

    engine.feed(some_ids(2000))
    monkeypatch.setattr(torch, "tensor", counted)
    run(engine, some_ids(5, seed=1), max_new_tokens=20, repetition_penalty=1.2)
    assert sum(lists) < 2 * 2005


def test_cancelling_between_tokens_keeps_what_there_is() -> None:
    engine = new_engine()
    seen: list[int] = []
    events = engine.turn(some_ids(10), SamplingOptions(max_new_tokens=50), cancelled=lambda: len(seen) == 3)
    record = None
    for event in events:
        if isinstance(event, Token):
            seen.append(event.id)
        elif isinstance(event, TurnDone):
            record = event.record
    assert record is not None and record.finish_reason == "cancelled"
    assert record.tokens_output == 3 == len(seen)
    assert engine.tokens == some_ids(10) + seen[:2]


def test_cancelling_in_prefill_gives_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PREFILL_CHUNK, "cpu", 16)
    engine = new_engine()
    asked = iter([False, True])
    events = list(engine.turn(some_ids(64), SamplingOptions(), cancelled=lambda: next(asked)))
    assert [type(e) for e in events] == [PrefillProgress, PrefillProgress, TurnDone]
    record = events[-1].record  # type: ignore[union-attr]
    assert record.finish_reason == "cancelled" and record.tokens_new == 16 and record.ttft_ms is None
    assert engine.tokens == some_ids(64)[:16]


def test_rewinding_and_going_on_is_as_if_never_gone_past() -> None:
    straight, detour = new_engine(), new_engine()
    straight.feed(some_ids(90))
    detour.feed(some_ids(90))
    run(detour, some_ids(40, seed=5), max_new_tokens=9)
    detour.rewind(90)
    assert detour.tokens == straight.tokens
    for seed in (7, 8):
        assert (
            run(detour, some_ids(11, seed), max_new_tokens=9)[0]
            == run(straight, some_ids(11, seed), max_new_tokens=9)[0]
        )


def test_a_failing_forward_leaves_the_dialogue_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine()
    engine.feed(some_ids(60))
    last = engine.model.model.layers[-1]

    def fails(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", fails)
        with pytest.raises(LoopserveError, match="out of memory at 60 stored tokens"):
            run(engine, some_ids(9, seed=2), max_new_tokens=3)
    assert engine.tokens == some_ids(60)
    other = new_engine()
    other.feed(some_ids(60))
    assert run(engine, some_ids(9, seed=2), max_new_tokens=5)[0] == run(other, some_ids(9, seed=2), max_new_tokens=5)[0]


def test_the_context_limit_refuses_before_feeding_and_ends_an_answer() -> None:
    engine = new_engine()
    limit = engine.context_limit
    assert limit == 4096
    with pytest.raises(ContextLimitError, match=r"4097 tokens long, but tiny-llama reads at most 4096"):
        run(engine, some_ids(4096), max_new_tokens=1)
    assert engine.tokens == []
    tokens, record = run(engine, some_ids(4090), max_new_tokens=50)
    assert record.finish_reason == "context" and len(tokens) == 6


def test_a_token_that_the_model_does_not_know_is_refused_before_feeding() -> None:
    engine = new_engine()
    for refused in (lambda: run(engine, [5, 1024]), lambda: engine.feed([1024, 5])):
        with pytest.raises(ModelError, match="the model has embeddings for only the first 1,024 tokens"):
            refused()
    assert engine.tokens == []


def test_sampling_is_seeded_and_warm() -> None:
    draws = [
        tuple(run(new_engine(), some_ids(30), temperature=2.0, seed=s, max_new_tokens=12)[0]) for s in (1, 1, 2, 3)
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
    greedy = run(new_engine(), some_ids(30), max_new_tokens=12)[0]
    assert run(new_engine(), some_ids(30), temperature=2.0, top_k=1, seed=9, max_new_tokens=12)[0] == greedy


@pytest.mark.parametrize("options", [{"top_k": 5}, {"top_p": 0.3}, {"min_p": 0.4}])
def test_truncated_sampling_draws_only_from_what_is_left(options: dict[str, Any]) -> None:
    from loopserve_cli.engine.sampling import Sampler

    logits = torch.linspace(0, 6, 50)[None]
    probabilities = logits.softmax(-1)[0]
    if "top_k" in options:
        allowed = set(range(45, 50))
    elif "top_p" in options:
        order = probabilities.argsort(descending=True)
        before = probabilities[order].cumsum(0) - probabilities[order]
        allowed = set(order[before < 0.3].tolist())
    else:
        allowed = set((probabilities >= 0.4 * probabilities.max()).nonzero().flatten().tolist())
    sampler = Sampler(SamplingOptions(temperature=1.0, seed=0, **options), torch.device("cpu"), [])
    drawn = {sampler.draw(logits) for _ in range(300)}
    assert drawn <= allowed and len(drawn) > len(allowed) // 2


class Letters:
    """A tokenizer of the bytes of a text, for streams."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["plain words", "naïve café — 日本語 🙂!", "tail é", "🙂"])
def test_text_streams_whole_characters(text: str) -> None:
    from loopserve_cli.engine.text_stream import TextStream

    stream = TextStream(Letters(), ())  # type: ignore[arg-type]
    pieces = [stream.push(byte) for byte in text.encode()]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + stream.flush() == text == stream.text


@pytest.mark.parametrize(
    ("text", "stop", "expected", "stopped"),
    [
        ("one STOP two", ("STOP",), "one ", True),
        ("one STO two", ("STOP",), "one STO two", False),
        ("ends in ST", ("STOP",), "ends in ST", False),
        ("aab", ("ab",), "a", True),
        ("x\n\ny", ("\n\n", "zzz"), "x", True),
    ],
)
def test_stop_strings_are_cut_and_never_shown_in_part(
    text: str, stop: tuple[str, ...], expected: str, stopped: bool
) -> None:
    from loopserve_cli.engine.text_stream import TextStream

    stream = TextStream(Letters(), stop)  # type: ignore[arg-type]
    shown = ""
    for byte in text.encode():
        shown += stream.push(byte)
        assert expected.startswith(shown)
        if stream.stopped:
            break
    shown += stream.flush()
    assert (shown, stream.text, stream.stopped) == (expected, expected, stopped)
