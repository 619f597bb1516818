"""The dashboard on a terminal: under the answer while it runs, below the input line between turns."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import tiny
from chat_fakes import Screen, engine_of, make_session, printed
from hand_clock import NOTHING_MS, TICK, in_hand
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console
from rich.progress import Progress, TaskID
from test_chat_markdown import all_there_is

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.dashboard.source import attach, dialogue
from loopserve_cli.chat.live import LiveView
from loopserve_cli.chat.prompt import prompt_session
from loopserve_cli.chat.repl import run_repl
from loopserve_cli.chat.session import Attachment, Session
from loopserve_cli.chat.shown import Shown
from loopserve_cli.chat.start import prompt_output
from loopserve_cli.chat.toolbar import bottom, toolbar
from loopserve_cli.chat.view import choose_view
from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import PrefillProgress
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.pace import Pace
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord

F2, CTRL_D = "\x1bOQ", "\x04"
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


class Clock:
    """What this thread computes, and what a test lets pass: waiting for other processes is in neither."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return time.thread_time() + self.passed


def watched(
    *answers: str, width: int = 80, height: int = 24, clock: Clock | None = None, environ: dict[str, str] | None = None
) -> tuple[Session, io.StringIO]:
    """A session that shows its dashboard on a terminal of that size."""
    session = make_session(*answers, context_limit=100_000)
    file = io.StringIO()
    environ = {"TERM": "xterm-256color"} | (environ or {})
    session.out = Console(
        file=file, width=width, height=height, force_terminal=True, legacy_windows=False, _environ=environ
    )
    session.view = LiveView(session.out, clock or time.perf_counter, environ)
    session.view.dashboard = True
    attach(session)
    return session, file


@pytest.fixture
def drawn_at_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopserve_cli.chat.live.REDRAW_SECONDS", 0.0)
    monkeypatch.setattr("loopserve_cli.chat.live.DASHBOARD_SHARE", 1.0)


@pytest.mark.parametrize(("width", "height"), [(50, 12), (60, 20), (80, 24), (120, 40), (200, 50)])
@pytest.mark.usefixtures("drawn_at_every_token")
def test_the_screen_ends_with_the_answer_once_and_no_strip(width: int, height: int) -> None:
    answer = "\n\n".join(" ".join(f"w{line}.{word}" for word in range(30)) for line in range(20))
    session, file = watched(answer, width=width, height=height)
    session.ask("go")
    shown = Screen(file.getvalue()).text
    assert shown.split() == answer.split()
    assert "answering" in file.getvalue() or width < 60
    assert "TTFT" in file.getvalue()


@pytest.mark.usefixtures("drawn_at_every_token")
def test_a_terminal_that_changes_its_size_gets_another_size_and_whole_lines() -> None:
    session, _ = watched("one two three four five six", width=120, height=40)
    heads: list[int] = []

    def resize(number: int) -> None:
        session.out.size = [(120, 40), (120, 40), (120, 40), (200, 50), (80, 24), (50, 12)][number]  # type: ignore[assignment]
        heads.append(session.view._region.height)  # type: ignore[attr-defined]

    engine_of(session).at_word = lambda number: resize(max(number, 0))
    session.ask("go")
    assert heads[-1] == 7 and max(heads) > 12  # six rows and the line that may still change


@pytest.mark.usefixtures("drawn_at_every_token")
def test_what_is_finished_goes_up_and_the_lines_below_are_those_of_now() -> None:
    session, file = watched("one two.\n\nthree four")
    screens: list[str] = []
    engine_of(session).at_word = lambda number: screens.append(Screen(file.getvalue()).text)
    session.ask("go")
    third = screens[4]  # "one two." is finished, "three" has come
    assert third.startswith("one two.\n\nthree\n── loopserve")
    assert third.count("one") == 1 and " 3 out" in third


def test_drawing_takes_less_than_a_fiftieth_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(f"word{number}" + (".\n\n" if number % 60 == 59 else "") for number in range(500))
    clock = Clock()
    monkeypatch.setattr("loopserve_cli.chat.session.Shown", partial(Shown, clock))
    for width, height in ((80, 24), (80, 24), (120, 40), (200, 50)):
        session, file = watched(words, width=width, height=height, clock=clock)

        def six_milliseconds(number: int) -> None:
            clock.passed += 0.006

        engine_of(session).at_word = six_milliseconds
        record = session.ask("go")
        assert record is not None and record.tokens_output == 500
        assert file.getvalue().count("answering") >= 5
    assert record.ui_ms is not None and 0 < record.ui_ms < 0.02 * 500 * 6


def test_one_hitch_does_not_stop_the_screen_but_slow_drawings_become_rare() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0], share=0.01, seconds=0.05, forgives=True)
    pauses = []
    for took in (0.001, 0.3, 0.001, 0.1, 0.1):
        start = now[0]
        now[0] += took
        pace.drawn(start)
        while not pace.due():
            now[0] += 0.01
        pauses.append(now[0] - start)
    assert pauses[0] < 0.06 and pauses[1] < 0.32 and pauses[2] < 0.06  # the hitch of 0.3 s is forgiven
    assert now[0] >= (0.001 + 0.001 + 0.1 + 0.1) / 0.01 and pauses[3] > 5


def test_what_drawing_took_is_in_the_record_in_the_dialogue_and_on_disk(tmp_path: Path) -> None:
    session = make_session("yes", save=tmp_path / "t.jsonl")
    record = session.ask("go")
    assert record is not None and record.ui_ms is not None and record.ui_ms > 0
    assert session.conversation.messages[-1].record is record is session.records[-1]
    assert session.standing() == [True]
    assert f'"ui_ms": {record.ui_ms}' in (tmp_path / "t.jsonl").read_text()


def tiny_session(profile: str = "full") -> Session:
    session = make_session()
    session.conversation = Conversation(Engine(tiny.loaded("llama"), load_profile(profile)))
    session.sampling = SamplingOptions(max_new_tokens=4)
    return session


def test_drawing_is_in_no_other_time(monkeypatch: pytest.MonkeyPatch) -> None:
    session = tiny_session()
    session.ask("warm up")
    clock = in_hand(monkeypatch)
    monkeypatch.setattr("loopserve_cli.chat.session.Shown", partial(Shown, clock))
    for name in ("prefill", "token"):
        setattr(session.view, name, clock.tick)
    record = session.ask("go")
    assert record is not None and record.ui_ms is not None and record.e2e_ms is not None
    drawings = 1 + 2 * session.conversation.engine._layers + (record.tokens_output or 0)
    assert record.ui_ms >= drawings * TICK * 1e3
    # The last token is shown after the end.
    assert record.e2e_ms < NOTHING_MS and (record.prefill_ms or 0) < NOTHING_MS
    assert (record.attention_ms or 0) < NOTHING_MS and sum(record.itl_ms) < NOTHING_MS


def test_a_long_chunk_tells_layer_by_layer_how_far_it_is() -> None:
    session = tiny_session()
    told: list[PrefillProgress] = []
    session.view.prefill = told.append  # type: ignore[method-assign]
    record = session.ask("a b c d e f g h")
    assert record is not None
    done = [event.done for event in told]
    assert done == sorted(done) and done[0] == 0 and done[-1] == record.tokens_new == told[-1].total
    layers = session.conversation.engine._layers
    assert len(done) == 2 * layers + 2 and len(set(done)) > layers
    assert all(event.ms is not None and event.cached == 0 for event in told)
    assert session.conversation.engine.on_progress is None


def test_a_history_is_told_of_layer_by_layer_too() -> None:
    session = tiny_session()
    session.err = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
    session.conversation.load([Message("user", "a b c d e"), Message("assistant", "f g h i j k l")])
    moved: list[tuple[object, object]] = []
    update = Progress.update

    def noted(bar: Progress, *task: TaskID, **values: object) -> None:
        moved.append((values["completed"], values["total"]))
        update(bar, *task, **values)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "update", noted)
        session.feed()
    held = len(session.conversation.engine.tokens)
    assert moved[0] == (0, held) and moved[-1] == (held, held)
    assert len({done for done, _ in moved}) > session.conversation.engine._layers
    assert session.conversation.engine.on_progress is None


def test_the_first_token_carries_the_turns_ttft() -> None:
    session = tiny_session()
    stamps: list[float | None] = []
    session.view.token = lambda event: stamps.append(event.ms)  # type: ignore[method-assign]
    record = session.ask("go")
    assert record is not None
    assert stamps[0] == record.ttft_ms and stamps[-1] == record.e2e_ms


@pytest.mark.parametrize("profile", ["full", "loopserve", "loopserve-host"])
def test_gauges_count_what_holds_tokens_and_agree_with_the_record(profile: str) -> None:
    session = tiny_session("full" if profile == "full" else "loopserve")
    engine = session.conversation.engine
    if profile == "loopserve-host":
        engine.set_profile(engine.profile.with_overrides(["retain.tier=host"]))
    assert engine.gauges().kv_used_host_bytes == 0
    record = session.ask("go on")
    assert record is not None
    now = engine.gauges()
    layer = engine._store.layers[0]
    assert layer.keys is not None and layer.values is not None
    a_token = sum(part.nbytes // part.shape[2] for part in (layer.keys, layer.values)) * len(engine._store.layers)
    assert now.kv_used_host_bytes == record.kv_used_host_bytes == a_token * len(engine.tokens)
    assert now.kv_store_host_bytes == record.kv_store_host_bytes > record.kv_used_host_bytes  # type: ignore[operator]
    assert (now.density, now.keys_read, now.keys_stored) == (record.density, record.keys_read, record.keys_stored)
    assert now.kv_used_device_bytes == 0 and now.gpu_busy is None and now.total_device_bytes is None
    session.conversation.clear()
    assert engine.gauges().kv_used_host_bytes == 0 and engine.gauges().tokens == 0


def test_between_turns_the_figures_are_of_now(tmp_path: Path) -> None:
    session = make_session("one", "two", "three words here", context_limit=1000)
    session.ask("a")
    session.ask("bb")
    now = dialogue(session)
    assert (now.turn, len(now.past), now.gauges.tokens) == (2, 2, len(session.conversation.engine.tokens))
    dispatch(session, "/undo")
    assert dialogue(session).past == (session.records[0],)
    assert "TTFT 12 ms" in toolbar(session)
    dispatch(session, "/clear")
    assert dialogue(session).past == () and toolbar(session).endswith(
        "0/1.0k tokens (0%) · TTFT n/a · rss 3.0 MiB · KV 0 B"
    )
    session.conversation.load([Message("user", "q"), Message("assistant", "a", record=TurnRecord(ttft_ms=77.0))])
    session.records.append(session.conversation.messages[-1].record)  # type: ignore[arg-type]
    assert "TTFT 77 ms" in toolbar(session)


@pytest.mark.parametrize("columns", [30, 40, 50, 60, 80, 120, 200])
def test_the_toolbar_never_cuts_what_matters_most(columns: int) -> None:
    session = make_session("one", context_limit=1000)
    session.ask("a")
    session.attachments = [Attachment("a-file-with-a-long-name.txt", "x"), Attachment("another-long-name.txt", "y")]
    session.unanswered = "x"
    line = toolbar(session, columns)
    assert "/1.0k" in line and "TTFT 12 ms" in line and "rss 3.0 MiB" in line and "KV 7.0 KiB" in line
    assert len(line) <= max(columns, 52)
    assert ("a-file-with-a-long-name.txt" in line) == (columns == 200)


def text_of(found: object) -> str:
    return found if isinstance(found, str) else "".join(text for _, text in found)  # type: ignore[attr-defined]


def test_the_idle_toolbar_is_the_dashboard_where_it_fits() -> None:
    session, _ = watched("yes")
    session.ask("go")
    shown = text_of(bottom(session, Size(24, 80))).split("\n")
    assert len(shown) == 6 and shown[0].endswith(" idle · F2 hides ──") and shown[1].startswith(" TTFT    12 ms")
    assert text_of(bottom(session, Size(24, 50))) == toolbar(session, 50)
    session.attachments = [Attachment("report.txt", "x")]
    assert text_of(bottom(session, Size(24, 80))).split("\n")[0] == "+ report.txt"
    session.view.dashboard = False
    assert text_of(bottom(session, Size(24, 80))) == toolbar(session, 80)


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


def chat(session: Session, keyboard: PipeInput, *keys: str) -> int:
    keyboard.send_text("".join(keys))
    return run_repl(session, prompt_session(session, InMemoryHistory(), input=keyboard, output=DummyOutput()))


def test_a_key_switches_it_and_keeps_what_was_typed(keyboard: PipeInput) -> None:
    session, file = watched("one", "two", "three")
    seen: list[str] = []
    engine_of(session).at_word = lambda number: seen.append(session.view.name)
    assert chat(session, keyboard, "a\r", "b", F2, "c\r", F2, "d\r", CTRL_D) == 0
    assert engine_of(session).asked == ["a", "bc", "d"]
    assert seen[::2] == ["dashboard", "simple", "dashboard"]
    assert file.getvalue().count("prefill · Ctrl-C stops") >= 2 and "…" in file.getvalue()


def test_the_command_switches_it(keyboard: PipeInput) -> None:
    session, _ = watched("one")
    chat(session, keyboard, "/dashboard\r", CTRL_D)
    assert session.view.name == "simple" and "dashboard off" in printed(session)[1]
    dispatch(session, "/dashboard")
    assert session.view.name == "dashboard" and "dashboard on" in printed(session)[1]
    with pytest.raises(UsageError, match="no argument"):
        dispatch(session, "/dashboard on")


def test_a_plain_view_gives_way_where_something_can_be_drawn(keyboard: PipeInput) -> None:
    session = make_session("one")
    attach(session)
    with pytest.raises(UsageError, match="cannot show the dashboard"):
        dispatch(session, "/dashboard")
    chat(session, keyboard, F2, CTRL_D)
    assert session.view.name == "plain"
    session.view.shows_thinking = False
    session.out = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    dispatch(session, "/dashboard")
    assert session.view.name == "dashboard" and not session.view.shows_thinking


@pytest.mark.usefixtures("drawn_at_every_token")
def test_without_colour_the_bars_stay() -> None:
    coloured, with_colours = watched("one two")
    coloured.ask("go")
    assert COLOUR.search(with_colours.getvalue())
    session, file = watched("one two", environ={"NO_COLOR": "1"})
    session.ask("go")
    assert not COLOUR.search(file.getvalue())
    assert "░" in file.getvalue() and Screen(file.getvalue()).text == "one two"


@pytest.mark.usefixtures("drawn_at_every_token")
def test_stopping_is_said_in_the_strip() -> None:
    session, file = watched("one two three")
    engine_of(session).at_word = lambda number: session.view.stopping() if number == 1 else None
    session.ask("go")
    assert " stopping " in file.getvalue() and "Ctrl-C stops" in file.getvalue()
    engine_of(session).answers = ["four"]
    file.truncate(file.seek(0))
    engine_of(session).at_word = lambda number: None
    session.ask("again")
    assert "stopping" not in file.getvalue()


def test_ctrl_c_takes_the_last_line_of_the_strip() -> None:
    controller, terminal = os.openpty()
    with os.fdopen(controller, "rb", buffering=0) as screen, os.fdopen(terminal, "w") as file:
        session, _ = watched("one")
        session.view = LiveView(Console(file=file, width=80, height=24, force_terminal=True), environ={"TERM": "xterm"})
        session.view.dashboard = True
        attach(session)
        session.view.begin()
        assert "stopping" not in all_there_is(screen)
        session.view.stopping()
        assert all_there_is(screen) == "\r stopping…\x1b[K"
        session.view.end()


def test_a_turn_that_fails_leaves_no_turn_behind() -> None:
    session, _ = watched("one")

    def fail(number: int) -> None:
        raise UsageError("no")

    engine_of(session).at_word = fail
    with pytest.raises(UsageError):
        session.ask("go")
    assert "idle" in text_of(bottom(session, Size(24, 80)))


def test_a_dumb_terminal_is_sent_no_escape_sequence(keyboard: PipeInput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", screen)
    session = make_session("one two")
    session.out = Console(file=screen, _environ={"TERM": "dumb"})
    session.view = choose_view("dashboard", session.out)
    keyboard.send_text("a\r" + CTRL_D)
    prompt = prompt_session(session, InMemoryHistory(), input=keyboard, output=prompt_output())
    assert run_repl(session, prompt) == 0
    shown = screen.getvalue()
    assert "> a" in shown and "one two\n" in shown and "\x1b" not in shown and "TTFT" not in shown
