"""What goes wrong in a turn, a command or the terminal is a line, and the chat goes on with the dialogue as it was."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_fakes import LetterTokenizer, ScriptedEngine, dialogue_of, engine_of, make_session, printed
from forked_chat import ANSWER, WAIT, ForkedChat
from rich.console import Console

from loopserve_cli.chat.interrupts import Interrupts
from loopserve_cli.chat.live import LiveView, Pace
from loopserve_cli.chat.repl import step
from loopserve_cli.chat.shown import Shown
from loopserve_cli.chat.terminal import as_text, encodable
from loopserve_cli.engine.events import PrefillProgress

CTRL_C = "\x03"


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Any]:
    """Begins a chat; all are closed at the end."""
    begun: list[ForkedChat] = []

    def begin(hook: Any = lambda engine: None) -> ForkedChat:
        folder = tmp_path / str(len(begun))
        folder.mkdir()
        begun.append(ForkedChat(folder, hook))
        return begun[-1]

    yield begin
    for chat in begun:
        chat.close()


ERRORS = [MemoryError(), RecursionError("too deep"), ZeroDivisionError("division\x1b]52;c;x\x07 by zero"), ValueError()]
UNICODE = UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")


@pytest.mark.parametrize("error", [*ERRORS, UNICODE, OSError(5, "Input/output error")])
def test_any_exception_of_a_turn_is_a_line(error: Exception, tmp_path: Path) -> None:
    session = make_session("one", "two", save=tmp_path / "t.jsonl")
    step(session, "first")
    before = (tmp_path / "t.jsonl").read_bytes()

    def fail(number: int) -> None:
        raise error

    engine_of(session).at_word = fail
    printed(session)
    step(session, "second")
    lines = printed(session)[1].splitlines()
    assert len([line for line in lines if type(error).__name__ in line]) == 1 and len(lines) == 2
    assert "--debug" in lines[0] and "\x1b" not in lines[0]
    assert dialogue_of(session) == [("user", "first"), ("assistant", "one")]
    assert (tmp_path / "t.jsonl").read_bytes() == before
    engine_of(session).at_word = lambda number: None
    step(session, "third")
    assert dialogue_of(session)[2:] == [("user", "third"), ("assistant", "two")]


def test_debug_shows_the_traceback() -> None:
    session = make_session("one")
    session.debug = True

    def fail(number: int) -> None:
        raise ZeroDivisionError

    engine_of(session).at_word = fail
    step(session, "first")
    told = printed(session)[1]
    assert "Traceback" in told and "in fail" in told and "error: ZeroDivisionError" in told


@pytest.mark.parametrize("line", ["/read a\0b", "/save a\0b", "/load a\0b", "/save " + "x" * 5000])
def test_any_exception_of_a_command_is_a_line(line: str, tmp_path: Path) -> None:
    session = make_session("one", save=tmp_path / "t.jsonl")
    step(session, "first")
    printed(session)
    step(session, line)
    lines = printed(session)[1].splitlines()
    assert lines[0].startswith("error: ") and len(lines) == 2
    assert dialogue_of(session) == [("user", "first"), ("assistant", "one")]


def test_a_command_that_fails_half_way_is_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session = make_session("one", save=tmp_path / "t.jsonl")
    step(session, "first")
    before = (tmp_path / "t.jsonl").read_bytes()

    def fail(length: int) -> None:
        raise MemoryError

    monkeypatch.setattr(engine_of(session), "rewind", fail)
    step(session, "/undo")
    assert "MemoryError" in printed(session)[1]
    assert dialogue_of(session) == [("user", "first"), ("assistant", "one")]
    assert (tmp_path / "t.jsonl").read_bytes() == before


def hang_in_tokenising(engine: ScriptedEngine) -> None:
    whole = LetterTokenizer.__call__

    def tokenise(self: LetterTokenizer, text: str, add_special_tokens: bool) -> Any:
        while "hang" in text:
            time.sleep(0.01)
        return whole(self, text, add_special_tokens)

    LetterTokenizer.__call__ = tokenise  # type: ignore[method-assign]


def test_a_second_ctrl_c_stops_what_tells_nothing(chats: Any) -> None:
    chat = chats(hang_in_tokenising)
    chat.prompts(1)
    chat.type("hang\r")
    time.sleep(0.4)
    chat.type(CTRL_C)
    time.sleep(0.2)
    assert chat.screen.count("\x1b[?2004h") == 1
    chat.type(CTRL_C)
    chat.prompts(2)
    chat.type(CTRL_C + "fine\r")
    chat.prompts(3)
    chat.type("/exit\r")
    assert chat.ended() == 0 and chat.usable()
    assert chat.said() == [("user", "fine"), ("assistant", ANSWER)]


def test_sigterm_stops_what_tells_nothing_and_keeps_the_question(chats: Any) -> None:
    chat = chats(hang_in_tokenising)
    chat.prompts(1)
    chat.type("hang\r")
    time.sleep(0.4)
    chat.kill(signal.SIGTERM)
    assert chat.ended() == 143 and chat.usable()
    assert chat.said() == [("user", "hang")]


def test_ctrl_c_stops_reading_a_pipe_that_nobody_writes(chats: Any) -> None:
    chat = chats()
    os.mkfifo(chat.path.parent / "fifo")
    chat.prompts(1)
    chat.type("/read fifo\r")
    time.sleep(0.3)
    chat.type(CTRL_C)
    chat.prompts(2)
    chat.type("/exit\r")
    assert chat.ended() == 0 and "Traceback" not in chat.screen


def test_bytes_that_are_no_text_are_replaced_and_come_back(chats: Any) -> None:
    chat = chats()
    chat.prompts(1)
    chat.type(b"caf\xe9\r")
    chat.wait_for("caf\ufffd")
    time.sleep(0.2)
    chat.look(0.2)
    assert "w1 " not in chat.screen  # the answer has not begun
    chat.type("\r")
    chat.prompts(2)
    chat.type(b"\xff" + CTRL_C.encode() + b"/exit\r")
    assert chat.ended() == 0 and "Traceback" not in chat.screen
    assert chat.said() == [("user", "caf\ufffd"), ("assistant", ANSWER)]
    assert b"+caf\xef\xbf\xbd" in (chat.path.parent / "state" / "loopserve" / "history").read_bytes()


@pytest.mark.parametrize("busy", ["loading", "answering"])
def test_what_is_typed_ahead_waits_in_the_input_line(busy: str, chats: Any) -> None:
    chat = chats((lambda engine: time.sleep(0.5)) if busy == "loading" else (lambda engine: None))
    before = 0
    if busy == "answering":
        chat.prompts(1)
        chat.type("zero\r")
        chat.wait_for("w2")
        before = 1
    else:
        time.sleep(0.2)
    chat.type("one\x1b[A\rtw\x7fwo\r")
    chat.prompts(before + 1)
    chat.wait_for("two")
    time.sleep(0.2)
    chat.type("!\r")
    chat.prompts(before + 2)
    chat.type("/exit\r")
    assert chat.ended() == 0
    assert chat.said()[2 * before :] == [("user", "one\ntwo!"), ("assistant", ANSWER)]


@pytest.mark.parametrize(("ignored", "code"), [(False, 129), (True, 1)])
@pytest.mark.parametrize("moment", ["prompt", "prefill", "decode"])
def test_a_terminal_that_goes_away_takes_nothing_along(ignored: bool, code: int, moment: str, tmp_path: Path) -> None:
    def hook(engine: ScriptedEngine) -> None:
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    chat = ForkedChat(tmp_path, hook)
    chat.prompts(1)
    chat.type("zero\r")
    chat.prompts(2)
    if moment != "prompt":
        chat.type("one\r")
        time.sleep(0.1)
    if moment == "decode":
        chat.wait_for("w2", times=2)
    chat.close()
    end = time.monotonic() + WAIT
    while not (gone := os.waitpid(chat.pid, os.WNOHANG))[0]:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(gone[1]) == code
    said = chat.said()
    assert said[:2] == [("user", "zero"), ("assistant", ANSWER)]
    if moment == "prompt":
        assert len(said) == 2
    else:
        assert said[2] == ("user", "one")
        assert moment == "prefill" or (said[3][1] and ANSWER.startswith(said[3][1]))


class NoTerminal(io.StringIO):
    """A terminal until it is closed; then, as Rich sees one, nothing to draw on."""

    closed_by_user = False

    def isatty(self) -> bool:
        return not self.closed_by_user


def test_a_live_view_says_that_its_terminal_is_gone() -> None:
    screen = NoTerminal()
    view = LiveView(Console(file=screen, _environ={"TERM": "xterm"}))
    view.begin()
    screen.closed_by_user = True
    view._pace = Pace(lambda: 0.0)
    shown = Shown()
    shown.draw(lambda: view.prefill(PrefillProgress(done=1, total=2)))
    assert shown.gone is not None and shown.gone.errno == errno.EIO


def test_only_two_presses_on_an_empty_line_quit(chats: Any) -> None:
    chat = chats()
    chat.prompts(1)
    for keys in (CTRL_C, "text", CTRL_C, CTRL_C, "more", CTRL_C):
        chat.type(keys)
        time.sleep(0.1)
    chat.type("on\r")
    chat.prompts(2)
    chat.type(CTRL_C + CTRL_C)
    assert chat.ended() == 0 and chat.usable()
    assert chat.said() == [("user", "on"), ("assistant", ANSWER)]


def under_a_shell(engine: ScriptedEngine) -> None:
    """What was forked becomes a small shell; the chat is its job, and when that is suspended it is called back."""
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    while True:
        status = os.waitpid(job, os.WUNTRACED)[1]
        if not os.WIFSTOPPED(status):
            os._exit(os.waitstatus_to_exitcode(status))
        os.write(1, b"SUSPENDED")
        os.kill(job, signal.SIGCONT)


def test_ctrl_z_suspends_and_going_on_redraws(chats: Any) -> None:
    chat = chats(under_a_shell)
    chat.prompts(1)
    chat.type("half\x1a")
    chat.wait_for("SUSPENDED")
    chat.prompts(2)
    chat.type(" and whole\r")
    chat.prompts(3)
    chat.type("/exit\r")
    assert chat.ended() == 0
    assert chat.said()[0] == ("user", "half and whole")


def test_an_editor_that_leaves_no_text_is_a_line(chats: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad").write_bytes(b"caf\xe9")
    monkeypatch.setenv("VISUAL", f"cp {tmp_path / 'bad'}")
    chat = chats()
    chat.prompts(1)
    chat.type("mine\x18\x05")
    chat.wait_for("error: UnicodeDecodeError")
    chat.type("!\r")
    chat.prompts(3)
    chat.type("/exit\r")
    assert chat.ended() == 0 and "Traceback" not in chat.screen
    assert chat.said()[0] == ("user", "mine!")


def test_a_toolbar_that_fails_does_not_end_the_chat(chats: Any) -> None:
    def no_context(engine: ScriptedEngine) -> None:
        engine.context_limit = 0

    chat = chats(no_context)
    chat.wait_for("ZeroDivisionError")
    chat.type("/exit\r")
    assert chat.ended() == 0 and "Traceback" not in chat.screen


def test_typed_bytes_become_text() -> None:
    assert as_text(b"one\r\ntwo\x1b[A\x1b[12;1R\x00\r\n") == "one\ntwo"
    assert as_text(b"caf\xe9 \xc3\xa9") == "caf\ufffd \u00e9"
    assert encodable("a\udce9b\ud83d") == "a\ufffdb\ufffd"


def test_a_press_raises_only_where_it_may() -> None:
    interrupts = Interrupts()
    with interrupts.installed():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.pressed
        interrupts.clear()
        with pytest.raises(KeyboardInterrupt), interrupts.raising():
            os.kill(os.getpid(), signal.SIGINT)
        source = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
        interrupts = Interrupts()
        with interrupts.installed(), interrupts.raising():
            exec(compile(source, "store.py", "exec"), {"__name__": "loopserve_cli.engine.store"})
        assert interrupts.pressed


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_press_after_a_retry_leaves_its_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session = make_session("one", "two", save=tmp_path / "t.jsonl")
    retry = session.retry

    def and_press() -> None:
        retry()
        press()

    monkeypatch.setattr(session, "retry", and_press)
    with session.interrupts.installed():
        step(session, "first")
        step(session, "/retry")
    assert dialogue_of(session) == [("user", "first"), ("assistant", "two")]


def test_two_presses_before_the_history_is_fed_leave_it_to_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session("one", "two")
    step(session, "first")
    engine_of(session).reset()
    ids = session.conversation.template.ids

    def slow(*given: Any, **named: Any) -> Any:
        press()
        press()
        return ids(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(session.conversation.template, "ids", slow)
        session.feed()
    assert engine_of(session).tokens == []
    step(session, "second")
    assert dialogue_of(session)[2:] == [("user", "second"), ("assistant", "two")]


def test_replay_ends_on_sigterm_as_on_ctrl_c() -> None:
    program = (
        "import os, signal, sys, typer\n"
        "from loopserve_cli.edge import guarded\n"
        "class Command:\n"
        "    def main(self, *given, **options):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        except KeyboardInterrupt:\n"
        "            return 130\n"
        "sys.exit(guarded(Command(), []))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=240)
    assert (ended.returncode, ended.stderr) == (143, b"")
