"""What a model thinks is seen, folded or left out, and never taken for its answer."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest
from chat_fakes import Screen, dialogue_of, engine_of, make_session, printed
from rich.console import Console

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.settings import set_choices
from loopserve_cli.chat.figures import turn_line
from loopserve_cli.chat.live import LiveView
from loopserve_cli.chat.repl import excerpt, handle
from loopserve_cli.chat.view import PlainView, View, choose_view, show
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import resume

THOUGHT = "First line.\nSecond **line**\nand more"
ANSWER = "It is *four*.\n\n- two\n- two"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def play(view: View, thoughts: str, answer: str, finish: str = "stop", clock: Clock | None = None) -> None:
    """A turn of one token a letter, a second each for thoughts."""
    view.begin()
    show(view, PrefillProgress(10, 10))
    for letter in thoughts:
        show(view, Token(0, letter, reasoning=True))
        if clock is not None:
            clock.now += 1
    show(view, Token(0, ""))  # a tag
    for letter in answer:
        show(view, Token(0, letter))
    show(view, TurnDone(TurnRecord(finish_reason=finish, output_text=answer)))
    view.end()


def live(shows: bool, clock: Clock) -> tuple[LiveView, io.StringIO]:
    file = io.StringIO()
    console = Console(
        file=file, width=60, height=12, force_terminal=True, legacy_windows=False, color_system="standard"
    )
    view = LiveView(console, clock, environ={"TERM": "xterm-256color"})
    view.shows_thinking = shows
    return view, file


@pytest.fixture(autouse=True)
def drawn_at_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopserve_cli.chat.live.REDRAW_SECONDS", 0.0)
    monkeypatch.setattr("loopserve_cli.chat.live.REDRAW_SHARE", 1.0)


def test_thoughts_stand_dim_above_the_answer() -> None:
    view, file = live(True, clock := Clock())
    play(view, THOUGHT, ANSWER, clock=clock)
    assert Screen(file.getvalue()).text == f"{THOUGHT}\n\nIt is four.\n\n • two\n • two"
    assert "\x1b[2mFirst line.\x1b[0m" in file.getvalue()
    assert "thinking · 5 tokens" in file.getvalue()


def test_hidden_thoughts_are_folded_to_one_line() -> None:
    view, file = live(False, clock := Clock())
    play(view, THOUGHT, ANSWER, clock=clock)
    folded = f"thought for {len(THOUGHT)} tokens, {len(THOUGHT)}.00 s"
    assert Screen(file.getvalue()).text == f"{folded}\n\nIt is four.\n\n • two\n • two"
    assert "First" not in file.getvalue() and "thinking · 5 tokens" in file.getvalue()


def test_thoughts_without_an_answer_say_so() -> None:
    view, file = live(True, Clock())
    play(view, "hm", "", finish="length")
    assert Screen(file.getvalue()).text == "hm\n(no answer)"
    view, file = live(True, Clock())
    play(view, "hm", "", finish="cancelled")
    assert Screen(file.getvalue()).text == "hm\n[stopped]"
    view, file = live(False, Clock())
    play(view, "", "yes")
    assert Screen(file.getvalue()).text == "yes"


def test_thoughts_between_two_parts_of_an_answer_stay_between_them() -> None:
    view, file = live(True, Clock())
    view.begin()
    for text, reasoning in (("one", False), ("two", True), ("three", False)):
        view.token(Token(0, text, reasoning))
    view.done(TurnDone(TurnRecord(finish_reason="stop")))
    assert Screen(file.getvalue()).text.split() == ["one", "two", "three"]


def test_escapes_in_thoughts_do_not_reach_the_terminal() -> None:
    view, file = live(True, Clock())
    play(view, "a\x1b[2Jb", "c")
    assert "\x1b[2J" not in file.getvalue() and "a␛[2Jb" in Screen(file.getvalue()).text


def plain(tty: bool = False, shows: bool = True, **aside: bool) -> tuple[PlainView, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    out.isatty = lambda: tty  # type: ignore[method-assign]
    return PlainView(out, Console(file=err, **aside), shows), out, err  # type: ignore[arg-type]


def test_plainly_thoughts_go_aside_and_the_answer_alone_to_the_stream() -> None:
    view, out, err = plain()
    play(view, THOUGHT, ANSWER)
    assert (out.getvalue(), err.getvalue()) == (ANSWER + "\n", THOUGHT + "\n")
    view, out, err = plain(tty=True)
    play(view, THOUGHT, ANSWER)
    assert (out.getvalue(), err.getvalue()) == (ANSWER + "\n", THOUGHT + "\n\n")
    view, out, err = plain(shows=False)
    play(view, THOUGHT, ANSWER)
    assert (out.getvalue(), err.getvalue()) == (ANSWER + "\n", "")
    view, out, err = plain()
    play(view, THOUGHT, "", finish="length")
    assert (out.getvalue(), err.getvalue()) == ("\n", THOUGHT + "\n")


def test_thoughts_are_dim_on_a_terminal_and_never_on_a_dumb_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    view, _, err = plain(force_terminal=True)
    play(view, "hm", "yes")
    assert "\x1b[2mh\x1b[0m" in err.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    view, _, err = plain(force_terminal=True)
    play(view, "hm", "yes")
    assert err.getvalue() == "hm\n"


def test_the_plain_view_of_a_chat_has_a_place_for_thoughts() -> None:
    out, err = Console(file=io.StringIO()), Console(file=io.StringIO())
    play(choose_view("simple", out, {}, aside=err), "hm", "yes")
    assert isinstance(err.file, io.StringIO) and err.file.getvalue() == "hm\n"


def test_set_thinking_shows_or_hides() -> None:
    session = make_session("a")
    assert set_choices(session, ["thinking"]) == ("show", "hide") and "thinking" in set_choices(session, [])
    dispatch(session, "/set thinking hide")
    assert not session.view.shows_thinking and printed(session)[1] == "thinking = hide\n"
    dispatch(session, "/set")
    assert ["thinking", "hide"] in [line.split()[:2] for line in printed(session)[0].splitlines()]
    dispatch(session, "/set thinking show")
    assert session.view.shows_thinking
    with pytest.raises(UsageError, match="thinking is 'maybe', but must be show or hide"):
        dispatch(session, "/set thinking maybe")
    with pytest.raises(UsageError, match="unknown --thinking 'maybe'; choose one of show, hide"):
        ChatOptions(ModelOptions(), SamplingOptions(), load_profile("full"), thinking="maybe")


def test_a_turn_with_thoughts_is_kept_and_measured(tmp_path: Path) -> None:
    session = make_session("four", save=tmp_path / "t.jsonl")
    engine_of(session).thoughts = "two and two"
    record = session.ask("2+2?")
    assert record is not None and record.reasoning_text == "two and two"
    last = session.conversation.messages[-1]
    assert (last.content, last.reasoning) == ("four", "two and two")
    assert resume(tmp_path / "t.jsonl")[1] == session.conversation.messages
    out, err = printed(session)
    assert out == "four\n"
    assert "4 out · answer after 15 ms · 3 thought · rss" in err
    dispatch(session, "/stats")
    assert printed(session)[0].splitlines()[-1].split() == ["1", "3", "12", "ms", "15", "ms"]


def test_what_was_not_thought_is_not_mentioned() -> None:
    record = TurnRecord(tokens_output=3, ttft_ms=10.0, first_answer_ms=10.0)
    assert "thought" not in turn_line(record) and "answer" not in turn_line(record)
    cut = TurnRecord(tokens_output=3, tokens_reasoning=3, ttft_ms=10.0)
    assert "3 out · 3 thought" in turn_line(cut) and "answer after" not in turn_line(cut)
    session = make_session("a")
    session.ask("b")
    printed(session)
    dispatch(session, "/stats")
    assert "answer after" not in printed(session)[0]


def test_tokens_counts_the_thoughts_that_the_template_keeps() -> None:
    session = make_session("four")
    engine_of(session).thoughts = "two and two"
    session.ask("2+2?")
    printed(session)
    dispatch(session, "/tokens")
    rows = [line.rsplit(maxsplit=1) for line in printed(session)[0].splitlines()]
    assert ["thoughts that stay", "0"] in rows and ["template", "4"] in rows


def test_ctrl_c_while_it_thinks_gives_the_message_back(tmp_path: Path) -> None:
    session = make_session("four", save=tmp_path / "t.jsonl")
    engine_of(session).thoughts = "two and two"
    engine_of(session).at_word = lambda number: os.kill(os.getpid(), signal.SIGINT) if number == 1 else None
    handle(session, "2+2?")
    assert session.next_input == "2+2?" and dialogue_of(session) == []
    assert resume(tmp_path / "t.jsonl")[1] == []
    assert printed(session)[1].endswith("stopped before the answer began; your message is back in the input line\n")


def test_an_answer_that_was_all_thought_is_explained() -> None:
    session = make_session("")
    engine = engine_of(session)
    engine.thoughts = "two and two"
    turn = engine.turn

    def cut(*given):  # type: ignore[no-untyped-def]
        *events, done = turn(*given)
        yield from events
        yield TurnDone(TurnRecord(**{**done.record.to_json(), "finish_reason": "length"}))

    engine.turn = cut  # type: ignore[method-assign]
    assert session.ask("2+2?") is not None
    assert "there is no answer; a larger max_new_tokens leaves room for one" in printed(session)[1]


def test_a_message_that_was_thought_over_says_so_in_one_line() -> None:
    record = TurnRecord(tokens_reasoning=1234)
    assert excerpt(Message("assistant", "four", record=record, reasoning="a\nb")) == "thought for 1,234 tokens\nfour"
    assert excerpt(Message("assistant", "", reasoning="a")) == "thought\n(no answer)"
