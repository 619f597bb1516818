"""What is piped in stands before the message that is given: through the program as a shell starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_fakes import ScriptedEngine

from loopserve_cli.chat import piped, run, start
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    made = ScriptedEngine("the answer")
    monkeypatch.setattr(start, "load_conversation", lambda options, err: Conversation(made))  # type: ignore[arg-type]
    return made


def asks(monkeypatch: pytest.MonkeyPatch, handle: int, message: str = "What is it?") -> None:
    """Ask with `handle` as standard input."""
    with os.fdopen(handle) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        options = ChatOptions(ModelOptions(), SamplingOptions(), load_profile("full"), message=message)
        assert run(options) == 0


def pipe_of(data: bytes) -> int:
    """A pipe that holds the bytes and ends there."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def test_a_pipe_stands_before_the_message(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asks(monkeypatch, pipe_of("\ufeff\n\nzwei\r\nZeilen ü\n\n".encode()))
    assert engine.asked == ["zwei\nZeilen ü\n\nWhat is it?"]


def test_so_does_a_file(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The room of Miro is 417.\n")
    asks(monkeypatch, os.open(tmp_path / "notes.txt", os.O_RDONLY))
    assert engine.asked == ["The room of Miro is 417.\n\nWhat is it?"]


@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_a_pipe_with_nothing_in_it_changes_nothing(
    data: bytes, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asks(monkeypatch, pipe_of(data))
    assert engine.asked == ["What is it?"]
    assert capsys.readouterr().err.startswith("TTFT")


def test_neither_does_dev_null_nor_a_terminal(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asks(monkeypatch, os.open(os.devnull, os.O_RDONLY))
    import pty

    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"typed ahead\n")
    engine.answers.append("again")
    asks(monkeypatch, terminal, "Second?")
    assert engine.asked == ["What is it?", "Second?"]
    os.close(keyboard)


def test_no_standard_input_at_all_is_fine_with_a_message(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert not piped.has_input()
    with pytest.raises(UsageError, match="there is no standard input; give a message"):
        piped.piped_text()


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"caf\xe9", "standard input is not UTF-8 text"), (b"x" * 9, "standard input is larger than")],
)
def test_limits_are_as_without_a_message(
    data: bytes, expected: str, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piped, "MESSAGE_LIMIT", 8)
    with pytest.raises(UsageError, match=expected):
        asks(monkeypatch, pipe_of(data))
    assert engine.asked == []


def test_who_waits_for_a_pipe_is_told(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(piped, "PATIENCE", 0.05)
    reading, writing = os.pipe()
    waited = piped.select.select

    def then_write(*arguments: object) -> object:
        found = waited(*arguments)  # type: ignore[arg-type]
        os.write(writing, b"late")
        os.close(writing)
        return found

    monkeypatch.setattr(piped.select, "select", then_write)
    asks(monkeypatch, reading)
    assert engine.asked == ["late\n\nWhat is it?"]
    told = "reading standard input, to stand before the message; </dev/null leaves it out\n"
    assert capsys.readouterr().err.startswith(told)


def test_ctrl_c_while_a_pipe_is_waited_for_is_130() -> None:
    command = [sys.executable, "-m", "loopserve_cli", "chat", "What is it?"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as chat:
        assert chat.stderr is not None
        assert chat.stderr.readline().startswith(b"reading standard input")
        time.sleep(0.2)
        chat.send_signal(signal.SIGINT)
        assert (chat.wait(timeout=240), chat.stderr.read()) == (130, b"")


def test_the_demo_answers_from_what_was_piped_in() -> None:
    command = [sys.executable, "-m", "loopserve_cli", "chat", "What is the room of Miro?"]
    done = subprocess.run(command, input=b"The room of Miro is 417.\n", capture_output=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, b"The room of Miro is 417.\n")
