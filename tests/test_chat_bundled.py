"""The dialogues that come with the package can be gone on with, and are never written to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from chat_fakes import dialogue_of, engine_of, make_session, printed
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from test_chat_start import engine, home, options, said, talk

from loopserve_cli.app import main
from loopserve_cli.bundled_files import TRANSCRIPTS, bundled_path, transcripts_folder
from loopserve_cli.chat import run
from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.errors import UsageError
from loopserve_cli.transcript import Header, read_dialogues

__all__ = ["engine", "home"]  # fixtures


def digest() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(transcripts_folder().iterdir()))).hexdigest()


def pairs(name: str) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in read_dialogues(bundled_path(name))[0].messages]


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_resume_goes_on_with_it_in_a_new_file(
    name: str, engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    before, engine.context_limit = digest(), None
    assert talk(monkeypatch, "more\r\x04", resume=Path(name)) == 0
    (new,) = (tmp_path / "state").rglob("*.jsonl")
    assert said(new) == [*pairs(name), ("user", "more"), ("assistant", "the answer")]
    assert digest() == before
    assert sorted(p.name for p in transcripts_folder().iterdir()) == sorted(TRANSCRIPTS.values())


def test_one_turn_on_it_is_saved_only_where_that_is_said(engine, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    before, engine.context_limit = digest(), None
    assert run(options(message="a", resume=Path("demo"))) == 0
    assert not (tmp_path / "state").exists()
    assert run(options(message="b", resume=Path("demo"), save=Path("t.jsonl"))) == 0
    assert said(Path("t.jsonl")) == [*pairs("demo"), ("user", "b"), ("assistant", "the second")]
    assert digest() == before


def test_a_file_of_that_name_goes_before_it(engine) -> None:  # type: ignore[no-untyped-def]
    assert run(options(message="a", save=Path("demo"))) == 0
    assert run(options(message="b", resume=Path("demo"))) == 0
    assert [text for _, text in said(Path("demo"))] == ["a", "the answer", "b", "the second"]


def test_load_takes_it_too(home: Path) -> None:
    session = make_session("next", context_limit=None)
    session.autosave = Autosave.new(home / "t.jsonl", Header("fake", "full"), session.warn)
    before = digest()
    dispatch(session, "/load demo:long")
    session.ask("go on")
    assert dialogue_of(session) == [*pairs("demo:long"), ("user", "go on"), ("assistant", "next")]
    assert session.autosave.path is not None and home in session.autosave.path.parents
    assert said(session.autosave.path) == dialogue_of(session)
    assert "200 messages" in printed(session)[1] and engine_of(session).asked == ["go on"]
    assert digest() == before


def test_an_unknown_one_is_an_error_that_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no bundled dialogue 'demo:short'; known: demo, demo:long, demo:xlong"):
        dispatch(make_session(), "/load demo:short")
    assert main(["chat", "--resume", "demo:short", "hi"]) == 2
    assert "known: demo, demo:long, demo:xlong" in capsys.readouterr().err


def test_load_completes_their_names() -> None:
    completer = CommandCompleter(make_session())
    assert [c.text for c in completer.get_completions(Document("/load demo:"), CompleteEvent())] == [
        "demo:long",
        "demo:xlong",
    ]
