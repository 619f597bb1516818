from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_fakes import dialogue_of, engine_of, make_session, printed
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.prompt import KeptHistory, open_history, prompt_session
from loopserve_cli.chat.repl import run_repl, show_tail
from loopserve_cli.chat.session import Attachment, Session
from loopserve_cli.chat.toolbar import fill, toolbar
from loopserve_cli.engine.gauges import Gauges
from loopserve_cli.messages import Message
from loopserve_cli.stats import TurnRecord

ALT_ENTER = "\x1b\r"
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


def chat(session: Session, keyboard: PipeInput, *keys: str) -> int:
    """Run the whole loop on typed keys; the last must leave."""
    history = InMemoryHistory()
    keyboard.send_text("".join(keys))
    return run_repl(session, prompt_session(session, history, input=keyboard, output=DummyOutput()))


def asked(session: Session) -> list[str]:
    return engine_of(session).asked


def test_enter_sends_and_ctrl_d_leaves(keyboard: PipeInput) -> None:
    session = make_session("one", "two")
    assert chat(session, keyboard, "hello\r", "again\r", CTRL_D) == 0
    assert asked(session) == ["hello", "again"]


def test_alt_enter_adds_a_line(keyboard: PipeInput) -> None:
    session = make_session("ok")
    chat(session, keyboard, "  if a:", ALT_ENTER, "b\r", CTRL_D)
    assert asked(session) == ["if a:\nb"]


def test_a_paste_keeps_its_newlines_and_is_not_sent(keyboard: PipeInput) -> None:
    session = make_session("ok")
    chat(session, keyboard, "see: ", "\x1b[200~one\r\ntwo\n\n  three\x1b[201~", " end\r", CTRL_D)
    assert asked(session) == ["see: one\ntwo\n\n  three end"]


def test_ctrl_c_clears_the_input_and_then_quits(keyboard: PipeInput) -> None:
    session = make_session()
    chat(session, keyboard, "never sent", CTRL_C, CTRL_C, CTRL_C)
    assert asked(session) == []
    assert "press Ctrl-C again to quit" in toolbar(session)


def slowly(keyboard: PipeInput, *keys: str) -> threading.Thread:
    """Type with time between the keys, as long as a menu or the history needs to come up."""

    def type_keys() -> None:
        for key in keys:
            time.sleep(0.3)
            keyboard.send_text(key)

    typist = threading.Thread(target=type_keys)
    typist.start()
    return typist


def test_what_ctrl_c_cleared_can_be_fetched_back(keyboard: PipeInput) -> None:
    session = make_session("ok")
    typist = slowly(keyboard, "kept", CTRL_C, UP, "\r", CTRL_D)
    chat(session, keyboard)
    typist.join()
    assert asked(session) == ["kept"]


def test_a_late_second_ctrl_c_does_not_quit(keyboard: PipeInput) -> None:
    session = make_session("ok")
    now = [0.0]

    def a_second_and_a_half_a_look() -> float:
        now[0] += 1.5
        return now[0]

    session.interrupts._clock = a_second_and_a_half_a_look
    session.interrupts.press()
    now[0] += 10
    chat(session, keyboard, CTRL_C, "still here\r", CTRL_D)
    assert asked(session) == ["still here"]


def test_ctrl_c_after_a_stopped_answer_is_the_first_of_two(keyboard: PipeInput) -> None:
    session = make_session("one two")

    def press(number: int) -> None:
        if number == 1:
            os.kill(os.getpid(), 2)

    engine_of(session).at_word = press
    assert chat(session, keyboard, "go\r", CTRL_C, "still here", CTRL_C, CTRL_C, CTRL_C) == 0
    assert dialogue_of(session) == [("user", "go"), ("assistant", "one")]


def test_ctrl_d_deletes_where_there_is_text(keyboard: PipeInput) -> None:
    session = make_session("ok")
    chat(session, keyboard, "ab", "\x1b[D", CTRL_D, "c\r", CTRL_D)
    assert asked(session) == ["ac"]


def test_errors_are_lines_and_the_chat_goes_on(keyboard: PipeInput) -> None:
    session = make_session("fine", context_limit=30)
    chat(session, keyboard, "x" * 60 + "\r", CTRL_C, "/udno\r", "ok\r", "/quit\r")  # the message is back in the line
    assert asked(session) == ["ok"]
    errors = [line for line in printed(session)[1].splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert errors[0] == "error: the dialogue is too long for fake"
    assert "did you mean /undo?" in errors[1]


def test_edit_brings_the_message_back_into_the_line(keyboard: PipeInput) -> None:
    session = make_session("one", "two")
    chat(session, keyboard, "helo\r", "/edit\r", "!\r", CTRL_D)
    assert asked(session) == ["helo", "helo!"]
    assert dialogue_of(session) == [("user", "helo!"), ("assistant", "two")]


def test_a_message_stopped_early_comes_back_into_the_line(keyboard: PipeInput) -> None:
    session = make_session("one", "two")
    presses = [True]

    def press_once(number: int) -> None:
        if presses:
            presses.pop()
            os.kill(os.getpid(), 2)

    engine_of(session).at_word = press_once
    chat(session, keyboard, "slow\r", "er\r", CTRL_D)
    assert dialogue_of(session) == [("user", "slower"), ("assistant", "two")]
    assert "your message is back in the input line" in printed(session)[1]


def test_tab_completes_the_command(keyboard: PipeInput) -> None:
    session = make_session("ok")
    prompt = prompt_session(session, InMemoryHistory(), input=keyboard, output=DummyOutput())

    typist = slowly(keyboard, "/und", "\t", "\r")
    assert prompt.prompt() == "/undo"
    typist.join()


def completions(text: str) -> list[str]:
    completer = CommandCompleter(make_session())
    return [c.text for c in completer.get_completions(Document(text), CompleteEvent())]


def test_completions_fit_the_place(tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("x")
    assert completions("/re") == ["retry", "read", "reset"]
    assert completions("/set temp") == ["temperature"]
    assert "prefill.policy" in completions("/set ")
    assert completions("/set keep.policy ev") == ["everything"]
    assert completions("/set retain.tier ") == ["device", "host", "evict"]
    assert completions("/set seed ") == ["none"]
    assert "full" in completions("/profile ")
    assert completions(f"/read {tmp_path}/rep") == ["ort.txt"]
    assert completions("/help und") == ["undo"]
    assert completions("/undo ") == completions("//und") == completions("und") == completions("/x\n/und") == []


def test_history_is_kept_for_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    history = open_history(path, print)
    history.append_string("one\ntwo")
    assert list(KeptHistory(path, print).load_history_strings()) == ["one\ntwo"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_history_that_cannot_be_kept_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").write_text("")
    assert isinstance(open_history(tmp_path / "file" / "history", told.append), InMemoryHistory)
    assert len(told) == 1
    history = open_history(tmp_path / "history", told.append)
    (tmp_path / "history").unlink()
    (tmp_path / "history").mkdir()
    history.append_string("a")
    history.append_string("b")
    assert len(told) == 2
    assert history.get_strings() == ["a", "b"]


def test_the_toolbar_tells_the_state_of_the_dialogue(tmp_path: Path) -> None:
    session = make_session("four", context_limit=200)
    assert toolbar(session) == "fake · full · 0/200 tokens (0%) · TTFT n/a · rss 3.0 MiB · KV 0 B"
    session.ask("abc")
    measured = TurnRecord(ttft_ms=1234.0, rss_bytes=1, peak_device_bytes=1, kv_store_device_bytes=1)
    session.records[-1] = measured
    session.conversation.messages[-1] = replace(session.conversation.messages[-1], record=measured)
    now = Gauges(10, peak_device_bytes=5 * 2**30, kv_used_device_bytes=2**20, kv_used_host_bytes=2**20)
    session.conversation.engine.gauges = lambda: now  # type: ignore[method-assign]
    assert toolbar(session) == "fake · full · 10/200 tokens (5%) · TTFT 1.23 s · peak 5.0 GiB · KV 2.0 MiB"
    session.attachments.append(Attachment("report.txt", "text"))
    session.unanswered = "x"
    session.autosave = Autosave.off()
    session.autosave.problem = "disk full"
    assert toolbar(session).startswith("NOT SAVED · + report.txt · a message waits for its answer: /retry · fake")
    assert fill(70_000, None) == "70.0k tokens"


def test_the_farewell_says_how_to_go_on(keyboard: PipeInput, tmp_path: Path) -> None:
    session = make_session("ok", save=tmp_path / "t.jsonl")
    chat(session, keyboard, CTRL_D)
    assert printed(session)[1] == ""
    session = make_session("ok", save=tmp_path / "t.jsonl")
    chat(session, keyboard, "a\r", CTRL_D)
    assert printed(session)[1].endswith(f"go on with: loopserve chat --resume {tmp_path / 't.jsonl'}\n")


def test_a_dialogue_that_goes_on_shows_its_end() -> None:
    session = make_session()
    session.conversation.load(
        [
            Message("system", "never shown"),
            Message("user", "first"),
            Message("assistant", "old"),
            Message("user", "two\nlines"),
            Message("assistant", "\n".join("abcdef")),
            Message("user", "last"),
            Message("assistant", "half", partial=True),
        ]
    )
    session.unanswered = "killed here"
    show_tail(session)
    assert printed(session)[1].splitlines() == [
        "… 2 messages before",
        "> two",
        "  lines",
        "a",
        "b",
        "c",
        "d",
        "… 2 lines more",
        "> last",
        "half",
        "[stopped]",
        "> killed here",
        "this message has no answer yet: the chat ended before it was complete; /retry asks it again",
    ]


def test_the_editor_gives_its_text_back_unsent(keyboard: PipeInput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "sed -i s/foo/bar/")
    session = make_session("ok")
    typist = slowly(keyboard, "write foo", "\x18\x05", "", "!\r", CTRL_D)
    chat(session, keyboard)
    typist.join()
    assert asked(session) == ["write bar!"]


def test_three_quotation_marks_begin_and_end_a_message_of_several_lines(keyboard: PipeInput) -> None:
    session = make_session("one", "two", "three")
    keys = ('"""\r', "  first\r", "\r", "/second\r", '"""\r', '"""one line"""\r', '"""/undo\r"""\r', CTRL_D)
    chat(session, keyboard, *keys)
    assert asked(session) == ["  first\n\n/second", "one line", "/undo"]


def test_text_that_merely_begins_with_the_marks_is_sent_as_it_is(keyboard: PipeInput) -> None:
    session = make_session("ok")
    chat(session, keyboard, '\x1b[200~"""Doc."""\ndef f():\n    """More."""\x1b[201~', "\r", CTRL_D)
    assert asked(session) == ['"""Doc."""\ndef f():\n    """More."""']


def test_an_open_block_can_be_dropped_and_an_empty_one_sends_nothing(keyboard: PipeInput) -> None:
    session = make_session("ok")
    chat(session, keyboard, '"""\r', "never sent\r", CTRL_C, '"""\r"""\r', "ok\r", CTRL_D)
    assert asked(session) == ["ok"]


def test_an_open_block_says_how_it_ends(keyboard: PipeInput) -> None:
    session = make_session()
    prompt = prompt_session(session, InMemoryHistory(), input=keyboard, output=DummyOutput())
    seen: list[str] = []

    def look(_: object) -> None:
        error = prompt.default_buffer.validation_error
        seen.append("" if error is None else error.message)

    prompt.app.after_render += look
    typist = slowly(keyboard, '"""', "\r", "a", CTRL_C, CTRL_D)
    with pytest.raises(EOFError):
        prompt.prompt()
    typist.join()
    assert 'Enter adds a line; """ and Enter send the message, Ctrl-C drops it' in seen


@pytest.mark.parametrize("word", ["exit", "quit", "bye", " Exit "])
def test_a_word_that_is_meant_as_the_command_asks(word: str, keyboard: PipeInput) -> None:
    session = make_session()
    history = InMemoryHistory()
    keyboard.send_text(f"{word}\rwhat?\r\ry\r")
    prompt = prompt_session(session, history, input=keyboard, output=DummyOutput())
    assert run_repl(session, prompt) == 0
    assert session.closing and asked(session) == []
    assert history.get_strings() == [word]
    assert prompt.message == [("class:prompt", "> ")]


def test_no_goes_on_and_the_word_can_still_be_said(keyboard: PipeInput) -> None:
    session = make_session("see you", "ok")
    chat(session, keyboard, "bye\r", "No\r", '"""bye"""\r', "exit now\r", CTRL_D)
    assert asked(session) == ["bye", "exit now"]
    assert 'going on; """bye""" sends the word' in printed(session)[1]


@pytest.mark.parametrize("keys", [CTRL_D, CTRL_C + CTRL_C])
def test_the_question_can_be_left_too(keys: str, keyboard: PipeInput) -> None:
    session = make_session()
    assert chat(session, keyboard, "quit\r", keys) == 0
    assert asked(session) == []
