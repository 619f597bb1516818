"""How far a prefill is: told at once, between the layers of a long chunk, and drawn with the time that is left."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from chat_fakes import make_session, printed
from hand_clock import NOTHING_MS, TICK, in_hand
from rich.console import Console
from test_engine import new_engine, run, some_ids

from loopserve_cli.chat.wait_bar import (
    TimeLeft,
    WaitBar,
    sizes,
    tokens,
    told_between_tensors,
)
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import PrefillProgress, TurnDone
from loopserve_cli.engine.layerwise import told_within
from loopserve_cli.engine.loader import load
from loopserve_cli.messages import Message
from loopserve_cli.pace import brief
from loopserve_cli.profile import load_profile


def test_the_total_is_known_before_any_work() -> None:
    engine = new_engine()
    events = engine.feed_progress(some_ids(70))
    assert next(events) == PrefillProgress(0, 70) and engine.tokens == []
    assert list(events) == [PrefillProgress(70, 70)]
    turn = engine.turn(some_ids(30, seed=1), SamplingOptions(max_new_tokens=1))
    assert next(turn) == PrefillProgress(0, 30) and len(engine.tokens) == 70
    turn.close()  # type: ignore[attr-defined]
    assert len(engine.tokens) == 70


def test_layers_are_told_of_within_a_chunk_and_never_more_than_the_chunk() -> None:
    engine, told = new_engine(), []
    with told_within(engine, told.append):
        list(engine.feed_progress(some_ids(64)))
        # The tiny model has two layers, and each tells before and after it attends.
        assert told == [PrefillProgress(done, 64) for done in (0, 16, 32, 48)]
        told.clear()
        events = list(engine.turn(some_ids(40, seed=1), SamplingOptions(max_new_tokens=3)))
    assert told == [PrefillProgress(done, 40) for done in (0, 10, 20, 30)]
    assert [e for e in events if isinstance(e, PrefillProgress)] == [PrefillProgress(0, 40), PrefillProgress(40, 40)]
    assert engine.on_progress is None


def test_the_chunks_before_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from loopserve_cli.engine.chunks import PREFILL_CHUNK

    monkeypatch.setitem(PREFILL_CHUNK, "cpu", 32)
    engine, told = new_engine(), []
    with told_within(engine, told.append):
        list(engine.feed_progress(some_ids(70)))
    assert [event.done for event in told] == [0, 8, 16, 24, 32, 40, 48, 56, 64, 65, 67, 68]


def test_what_telling_takes_is_in_no_figure_and_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, straight = run(new_engine(), some_ids(60), max_new_tokens=4)
    engine, clock = new_engine(), in_hand(monkeypatch)
    with told_within(engine, clock.tick):
        slow, record = run(engine, some_ids(60), max_new_tokens=4)
    assert slow == ids
    assert clock.now >= 4 * TICK
    assert record.prefill_ms is not None and record.prefill_ms < NOTHING_MS
    assert record.ttft_ms is not None and record.ttft_ms < NOTHING_MS


def test_a_sparse_prefill_of_one_long_chunk_moves() -> None:
    engine = Engine(load(ModelOptions(), lambda line: None, print), load_profile("loopserve"))
    talk, told = Conversation(engine), []
    talk.load([Message("user", "The room of Miro is 417. " * 700), Message("assistant", "Noted.")])
    with told_within(engine, told.append):
        events = list(talk.prefill_progress())
    total = events[0].total
    assert total > 2048 and [event.done for event in events] == [0, total]  # a single chunk
    assert [event.done for event in told] == [total * n // 8 for n in range(8)]
    with told_within(engine, told.append), torch.inference_mode():
        *_, last = talk.ask("What is the room of Miro?", SamplingOptions())
    assert isinstance(last, TurnDone) and talk.messages[-1].content == "The room of Miro is 417."


def drawn(width: int, *events: PrefillProgress, at: list[float]) -> str:
    """The bar after those events, on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    times = iter(at)
    bar = WaitBar(console, "prefill", tokens, disable=False, clock=lambda: next(times))
    for event in events:
        bar.show(event.done, event.total)
    options = console.options
    lines = console.render_lines(bar.progress.get_renderable(), options, pad=False)
    return "\n".join("".join(segment.text for segment in line) for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_has_its_total_and_the_time_left_in_one_line(width: int) -> None:
    first = drawn(width, PrefillProgress(0, 16113), at=[0.0])
    assert "0/16,113 tokens" in first and "left" not in first and "\n" not in first
    # a quarter took 2 s, so the rest takes 6 s, of which 1 has passed
    moved = drawn(width, PrefillProgress(0, 16000), PrefillProgress(4000, 16000), at=[0.0, 2.0, 3.0])
    assert "4,000/16,000 tokens" in moved and moved.rstrip().endswith("5 s left") and "━" in moved
    assert "\n" not in moved and len(moved) <= width


def test_time_left_counts_only_what_was_done_here_and_never_below_nothing() -> None:
    now = [0.0]
    left = TimeLeft(lambda: now[0])
    assert left.seconds(None) is None
    left.step(9000)  # of a cache that was loaded
    assert left.seconds(10000) is None
    now[0] = 4.0
    left.step(9500)
    assert left.seconds(10000) == 4.0
    left.step(9500)  # told again
    now[0] = 6.0
    assert left.seconds(10000) == 2.0
    now[0] = 60.0
    assert left.seconds(10000) == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0 s"), (0.2, "1 s"), (59.0, "59 s"), (61.0, "1:01 min")])
def test_times_are_short(seconds: float, text: str) -> None:
    assert brief(seconds) == text


def test_nothing_is_drawn_where_nothing_may_be() -> None:
    session = make_session()
    session.conversation.load([Message("user", "q" * 30), Message("assistant", "a" * 30)])
    session.feed()
    assert printed(session)[1] == "64 of 64 tokens of history are in the cache\n"


def test_a_saved_cache_tells_how_far_it_is_written_and_read(tmp_path: Path) -> None:
    engine, told = new_engine(), []
    engine.feed(some_ids(200))
    with told_between_tensors(engine, lambda *amount: told.append(amount)):
        written = engine.save(tmp_path / "t.kv.safetensors")
        assert [done for done, _ in told] == sorted(done for done, _ in told) and len(told) == 1 + 2 * 2 * 2
        assert all(total == told[0][1] for _, total in told) and 0.9 * written < told[-1][0] <= told[-1][1] == written
        told.clear()
        again = new_engine()
        with told_between_tensors(again, lambda *amount: told.append(amount)):
            again.restore(again.saved(tmp_path / "t.kv.safetensors"))
    assert [total for _, total in told] == [written] * 2 and told[0][0] < told[1][0] <= written
    assert engine.between_tensors is None and again.tokens == engine.tokens


@pytest.mark.parametrize("width", [60, 80])
def test_the_bar_of_a_cache_has_sizes(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    times = iter([0.0, 2.0, 2.0])
    bar = WaitBar(console, "reading cache", sizes, disable=False, clock=lambda: next(times))
    bar.show(2**30, 4 * 2**30)
    bar.show(2 * 2**30, 4 * 2**30)
    rows = console.render_lines(bar.progress.get_renderable(), console.options, pad=False)
    (line,) = ("".join(segment.text for segment in row).rstrip() for row in rows)
    assert line.startswith("reading cache ━") and line.endswith("2.0 GiB/4.0 GiB 4 s left") and len(line) <= width
