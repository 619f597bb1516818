"""How far a replay is: counts, what is left, each profile beside the first, and that drawing is in no time."""

from __future__ import annotations

import io

import pytest
from hand_clock import NOTHING_MS, HandClock, in_hand
from replay_fakes import FakeEngine, options, profile, transcript
from rich.console import Console

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.engine.layerwise import told_within
from loopserve_cli.engine.loader import load
from loopserve_cli.measure.progress import Progress
from loopserve_cli.profile import load_profile
from loopserve_cli.replay import run
from loopserve_cli.replay.script import Exchange, Script
from loopserve_cli.replay.watch import LINE_SECONDS, Watch
from loopserve_cli.stats import TurnRecord


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(turn: int, name: str, ttft: float | None = None, tpot: float | None = None, **rest: object) -> TurnRecord:
    given = {"repeat": 1, **rest}
    return TurnRecord(conversation_id="x", turn=turn, profile=name, ttft_ms=ttft, tpot_ms=tpot, **given)  # type: ignore[arg-type]


def test_what_is_left_goes_by_the_same_turns_and_counts_down() -> None:
    clock = Clock()
    progress = Progress(["a", "b"], 4, {("x", 1): 2, ("x", 2): 2}, clock=clock)
    clock.now = 7.0  # a warm-up, say
    progress.begin()
    assert (progress.done, progress.total, progress.seconds_left) == (0, 4, None)
    clock.now = 17.0
    progress.ended(record(1, "a"))
    assert (progress.done, progress.seconds_gone, progress.seconds_left) == (1, 10.0, 30.0)
    clock.now = 19.0
    progress.ended(record(2, "a"))
    # The first turn took ten seconds, the second two; each comes once more.
    assert progress.seconds_left == 12.0
    clock.now = 24.0
    assert progress.seconds_left == 7.0
    progress.left_out([("x", 2)])
    assert (progress.done, progress.seconds_left) == (3, 5.0)
    clock.now = 99.0
    assert progress.seconds_left == 0.0


def test_turns_that_were_kept_are_done_and_count_in_the_medians() -> None:
    progress = Progress(["a"], 3, {("x", 2): 1, ("x", 3): 1}, [record(1, "a", 40.0, 4.0)], Clock())
    assert progress.done == 1
    [row] = progress.so_far()
    assert (row.turns, row.ttft_ms, row.tpot_ms) == (1, 40.0, 4.0)


def test_profiles_are_compared_on_the_same_turns() -> None:
    progress = Progress(["full", "fast", "idle"], 9, {}, clock=Clock())
    for turn, ttft in ((1, 100.0), (2, 900.0), (3, 5000.0)):
        progress.ended(record(turn, "full", ttft, 10.0))
    for turn, ttft in ((1, 50.0), (2, 300.0)):
        progress.ended(record(turn, "fast", ttft, 20.0, kl_mean=0.25))
    progress.ended(record(3, "fast", error="no room"))
    full, fast, idle = progress.so_far()
    assert (full.turns, full.ttft_ms, full.ttft_ratio) == (3, 500.0, None)
    assert (fast.turns, fast.ttft_ms, fast.ttft_ratio, fast.tpot_ratio, fast.kl) == (2, 175.0, 2.5, 0.5, 0.25)
    assert (idle.turns, idle.ttft_ms, idle.ttft_ratio, idle.kl) == (0, None, None, None)


SCRIPT = Script("x", "x.jsonl", None, (Exchange("one", "a"), Exchange("two", "b")), "recorded")


def watch_on(console: Console, clock: Clock) -> Watch:
    progress = Progress(["full", "fast"], 8, {("x", 1): 4, ("x", 2): 4}, clock=clock)
    return Watch(console, progress, 2, clock)


def test_without_a_terminal_a_line_every_five_seconds_says_all() -> None:
    file, clock = io.StringIO(), Clock()
    watch = watch_on(Console(file=file, width=40), clock)
    watch.begin(SCRIPT, profile("full"), 1)
    for second in range(1, 12):
        clock.now = float(second)
        watch.event(PrefillProgress(1024 * second, 16384))
    watch.event(Token(1, "a"))
    clock.now = 20.0
    watch.ended(record(1, "full", 20_000.0))
    assert file.getvalue().splitlines() == [
        "0 of 8 turns, 0 s gone: x · full · repeat 1/2",
        "0 of 8 turns, 5 s gone: x · full · repeat 1/2 · prefill 5,120/16,384 tokens",
        "0 of 8 turns, 10 s gone: x · full · repeat 1/2 · prefill 10,240/16,384 tokens",
        "1 of 8 turns, 20 s gone, 2:20 min left: x · full · repeat 1/2",
    ]
    assert LINE_SECONDS == 5.0


def test_a_terminal_has_a_table_that_is_gone_at_the_end() -> None:
    file, clock = io.StringIO(), Clock()
    environ = {"TERM": "xterm-256color"}
    console = Console(file=file, width=80, height=20, force_terminal=True, color_system=None, _environ=environ)
    watch = watch_on(console, clock)
    with watch.shown():
        watch.begin(SCRIPT, profile("full"), 1)
        clock.now = 1.0
        watch.ended(record(1, "full", 300.0, 30.0))
        clock.now = 2.0
        watch.ended(record(1, "fast", 100.0, 15.0, kl_mean=0.00041))
        clock.now = 3.0
        before = len(file.getvalue())
        watch.event(PrefillProgress(512, 2048))
        drawn = file.getvalue()[before:]
    for part in ("x · full · repeat 1/2 · prefill 512/2,048 tokens", "2/8 turns", "3 s gone, 5 s left"):
        assert part in drawn
    rows = [line.split() for line in drawn.splitlines() if line.strip().startswith(("full ", "fast "))]
    assert rows == [["full", "1", "300", "30.0", "n/a"], ["fast", "1", "100", "3.00x", "15.0", "2.00x", "0.00041"]]
    assert all(len(line) <= 80 for line in drawn.split("\x1b[2K")[-1].splitlines())
    assert file.getvalue().endswith("\x1b[2K")


def test_nothing_is_drawn_while_a_gpu_goes_on() -> None:
    file, clock = io.StringIO(), Clock()
    watch = watch_on(Console(file=file, width=40), clock)
    watch.draws_while_decoding = False
    watch.begin(SCRIPT, profile("full"), 1)
    said = file.getvalue()
    for second in (10.0, 20.0, 30.0):
        clock.now = second
        watch.event(Token(1, "a"))
    assert file.getvalue() == said
    watch.ended(record(1, "full"))
    assert file.getvalue() != said


class Closed(io.StringIO):
    """A terminal that is closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_that_closes_ends_the_drawing_and_not_the_run(terminal: bool) -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, _environ={"TERM": "xterm"})
    watch = watch_on(console, clock)
    with watch.shown():
        console.file = Closed()
        for second in (10.0, 20.0):
            clock.now = second
            watch.event(PrefillProgress(1, 2))
    assert watch.progress.done == 0


class Slow:
    """A watcher whose drawing takes long."""

    def __init__(self, clock: HandClock) -> None:
        self.calls = 0
        self.clock = clock

    def event(self, event: object) -> None:
        self.calls += 1
        self.clock.tick()


def test_drawing_is_in_no_time_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(load(ModelOptions()), load_profile("full"))
    for _ in Conversation(engine).ask("Hello.", SamplingOptions(max_new_tokens=3)):
        pass
    slow = Slow(in_hand(monkeypatch))
    conversation = Conversation(engine)
    with told_within(engine, slow.event):
        for event in conversation.ask("The room of Miro is 417.", SamplingOptions(max_new_tokens=3)):
            slow.event(event)
            if isinstance(event, TurnDone):
                turn = event.record
    assert slow.calls > 8  # the layers of the prefill, tokens and ends
    assert turn.e2e_ms is not None and turn.ttft_ms is not None
    assert turn.ttft_ms < turn.e2e_ms < NOTHING_MS


def test_a_replay_tells_its_watch_of_every_event(tmp_path, capsys, monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Watch, "event", lambda self, event: seen.append(type(event).__name__))
    path = transcript(tmp_path / "t.jsonl", ("x", [("one", "a")]))
    assert run(options(path, json=True), lambda given, say: FakeEngine(given.profiles[0])) == 0
    assert seen == ["PrefillProgress", "Token", "Token", "Token", "TurnDone"]
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert "0 of 1 turns" in captured.err


def test_before_a_server_is_waited_for_the_table_says_so() -> None:
    file, clock = io.StringIO(), Clock()
    console = Console(file=file, width=80, height=20, force_terminal=True, color_system=None)
    watch = watch_on(console, clock)
    with watch.shown():
        watch.begin(SCRIPT, profile("full"), 1)
        watch.asked()
        assert "x · full · repeat 1/2 · waiting for the server" in file.getvalue()
