from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from chat_fakes import FULL, ScriptedEngine
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from loopserve_cli.chat import prompt, run, start
from loopserve_cli.chat.live import LiveView
from loopserve_cli.chat.view import PlainView, choose_view
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.errors import LoopserveError, TranscriptError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, resume


class Standard(io.TextIOWrapper):
    """Standard input with some bytes in it, on a terminal or not."""

    def __init__(self, data: bytes = b"", tty: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    made = ScriptedEngine("the answer", "the second", "the third")

    def load(options: ChatOptions, err: object) -> Conversation:
        return Conversation(made, options.system)  # type: ignore[arg-type]

    monkeypatch.setattr(start, "load_conversation", load)
    return made


def options(**given: object) -> ChatOptions:
    return ChatOptions(ModelOptions(), SamplingOptions(), FULL, **given)  # type: ignore[arg-type]


def talk(monkeypatch: pytest.MonkeyPatch, keys: str, **given: object) -> int:
    """Chat as at a terminal that is typed on."""
    monkeypatch.setattr(sys, "stdin", Standard(tty=True))
    with create_pipe_input() as keyboard:
        keyboard.send_text(keys)
        made = prompt.prompt_session
        monkeypatch.setattr(
            start, "prompt_session", lambda s, h, output: made(s, h, input=keyboard, output=DummyOutput())
        )
        return run(options(**given))


def said(path: Path) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in resume(path)[1]]


def test_one_turn_has_the_answer_alone_on_stdout(engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options(message="hi", system="Be brief.")) == 0
    out, err = capsys.readouterr()
    assert out == "the answer\n"
    assert err.startswith("TTFT 12 ms")
    assert engine.held.startswith("\ue000Be brief.\ue003\ue001hi\ue003")
    assert not engine.keeps_lines  # nobody will ask for them
    assert not Path("state").exists()


def test_thoughts_reach_a_piped_stderr_only_where_they_are_asked_for(
    engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.thoughts = "hm and so on"
    assert run(options(message="hi")) == 0
    out, err = capsys.readouterr()
    assert out == "the answer\n" and err.startswith("TTFT 12 ms")
    assert run(options(message="hi", thinking="show")) == 0
    out, err = capsys.readouterr()
    assert out == "the second\n" and err.startswith("hm and so on\nTTFT 12 ms")


@pytest.mark.parametrize("data", ["zwei\nZeilen ü\n".encode(), "\ufeffzwei\r\nZeilen ü\r\n".encode()])
def test_piped_text_is_the_message(data: bytes, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Standard(data))
    assert run(options()) == 0
    assert engine.asked == ["zwei\nZeilen ü"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", "standard input is empty"), (b" \n", "standard input is empty"), (b"caf\xe9", "not UTF-8")],
)
def test_nothing_to_say_is_wrong_usage(
    data: bytes, expected: str, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Standard(data))
    with pytest.raises(UsageError, match=expected):
        run(options())
    with pytest.raises(UsageError, match="message is empty"):
        run(options(message=" "))


def test_one_turn_goes_on_with_a_file_and_keeps_it(engine: ScriptedEngine) -> None:
    assert run(options(message="a", save=Path("t.jsonl"))) == 0
    assert run(options(message="b", resume=Path("t.jsonl"))) == 0
    assert said(Path("t.jsonl")) == [
        ("user", "a"),
        ("assistant", "the answer"),
        ("user", "b"),
        ("assistant", "the second"),
    ]


def test_a_failed_single_turn_is_an_error(engine: ScriptedEngine) -> None:
    engine.context_limit = 2
    with pytest.raises(LoopserveError, match="too long"):
        run(options(message="abc", save=Path("t.jsonl")))
    assert said(Path("t.jsonl")) == []


def test_an_interrupted_single_turn_is_130(engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]) -> None:
    import os
    import signal

    engine.at_word = lambda number: os.kill(os.getpid(), signal.SIGINT) if number == 1 else None
    assert run(options(message="hi", save=Path("t.jsonl"))) == 130
    assert capsys.readouterr().out == "the\n"
    assert resume(Path("t.jsonl"))[1][-1].partial


def test_a_reader_that_left_reaches_the_edge_and_takes_the_turn_along(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(self: PlainView, text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(PlainView, "_write", gone)
    with pytest.raises(BrokenPipeError):
        run(options(message="hi", save=Path("t.jsonl")))
    assert capsys.readouterr().err == ""
    assert said(Path("t.jsonl")) == []


def test_a_chat_is_saved_by_itself_and_goes_on_where_it_stopped(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk(monkeypatch, "a\r\x04") == 0
    assert engine.keeps_lines
    (path,) = (home / "state" / "loopserve" / "transcripts").iterdir()
    err = capsys.readouterr().err
    assert f"saving to {path}" in err
    assert f"loopserve chat --resume {path}" in err
    assert talk(monkeypatch, "b\r/exit\r", resume=path) == 0
    assert said(path) == [("user", "a"), ("assistant", "the answer"), ("user", "b"), ("assistant", "the second")]
    assert "13 of 13 tokens of history are in the cache" not in err
    records = [m.record for m in resume(path)[1] if m.record]
    assert records[1].tokens_new == 4


def test_a_killed_turn_is_told_and_asked_again(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("t.jsonl")
    TranscriptWriter(path, Header("other", "full", id="x")).rewrite(
        [Message("user", "a"), Message("assistant", "b"), Message("user", "killed")]
    )
    assert talk(monkeypatch, "/retry\r\x04", resume=path) == 0
    err = capsys.readouterr().err
    assert "this message has no answer yet" in err
    assert "held with other" in err
    assert said(path) == [("user", "a"), ("assistant", "b"), ("user", "killed"), ("assistant", "the answer")]
    assert resume(path)[0].id == "x"


def test_another_message_takes_the_place_of_the_killed_one(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("t.jsonl")
    TranscriptWriter(path, Header()).rewrite([Message("user", "killed")])
    assert talk(monkeypatch, "\x04", resume=path) == 0
    assert said(path) == [("user", "killed")]
    assert talk(monkeypatch, "new\r\x04", resume=path) == 0
    assert said(path) == [("user", "new"), ("assistant", "the answer")]


def test_saving_elsewhere_leaves_the_resumed_file_alone(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Path("old.jsonl"), Path("new.jsonl")
    TranscriptWriter(old, Header()).rewrite([Message("user", "a"), Message("assistant", "b")])
    assert talk(monkeypatch, "c\r\x04", resume=old, save=new) == 0
    assert said(old) == [("user", "a"), ("assistant", "b")]
    assert said(new) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "the answer")]


def test_wrong_files_end_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(options: ChatOptions, err: object) -> Conversation:
        raise AssertionError("loaded a model for nothing")

    monkeypatch.setattr(start, "load_conversation", never)
    Path("taken.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="exists already"):
        run(options(message="a", save=Path("taken.jsonl")))
    with pytest.raises(TranscriptError, match="no such file"):
        run(options(message="a", resume=Path("nowhere.jsonl")))


def test_a_chosen_file_that_cannot_be_written_is_an_error(engine: ScriptedEngine) -> None:
    Path("file").write_text("")
    with pytest.raises(LoopserveError, match="cannot be written"):
        run(options(message="a", save=Path("file/t.jsonl")))


@pytest.mark.parametrize(
    ("ui", "terminal", "environ", "expected"),
    [
        ("simple", True, {"TERM": "xterm"}, LiveView),
        ("dashboard", True, {"TERM": "xterm"}, LiveView),
        ("none", True, {"TERM": "xterm"}, PlainView),
        ("simple", False, {"TERM": "xterm"}, PlainView),
        ("simple", True, {"TERM": "dumb"}, PlainView),
        ("simple", True, {"TERM": "xterm", "NO_COLOR": "1"}, LiveView),
        ("dashboard", True, {"TERM": "xterm", "NO_COLOR": "1"}, LiveView),
    ],
)
def test_the_view_fits_the_terminal(ui: str, terminal: bool, environ: dict[str, str], expected: type) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, _environ=environ)
    view = choose_view(ui, console, environ)
    assert isinstance(view, expected)
    assert view.name in ("simple", "plain")


def test_resume_alone_goes_on_in_the_newest_file(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk(monkeypatch, "one\r\x04") == 0
    [path] = (home / "state" / "loopserve" / "transcripts").iterdir()
    capsys.readouterr()
    assert talk(monkeypatch, "two\r\x04", resume_newest=True) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"going on with {path.stem} (") and "1 turn): one" in err.splitlines()[0]
    assert said(path) == [("user", "one"), ("assistant", "the answer"), ("user", "two"), ("assistant", "the second")]
    # A single turn, which without --resume is saved nowhere, stays in it too.
    assert run(options(message="three", resume_newest=True)) == 0
    assert said(path)[4:] == [("user", "three"), ("assistant", "the third")]
    engine.answers.append("the fourth")
    assert run(options(message="four", resume_newest=True, save=Path("copy.jsonl"))) == 0
    assert len(said(path)) == 6 and len(said(Path("copy.jsonl"))) == 8
