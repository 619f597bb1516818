"""What a chat does about its files: who else has them open, who can read them, and what is lost or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_fakes import ScriptedEngine, dialogue_of, engine_of, make_session, printed
from test_chat_start import options, said, talk

from loopserve_cli.chat import kv_file, run, start
from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.paths import new_transcript, transcripts_folder
from loopserve_cli.config import ChatOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, convert, lock, read_dialogues, resume, write
from loopserve_cli.transcript.lock import InUseError, holder

TALK = [Message("user", "a"), Message("assistant", "b")]
MISSING = "the working folder was removed; give the whole path"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    yield tmp_path
    os.umask(before)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    made = ScriptedEngine("the answer", "the second", "the third")

    def load(options: ChatOptions, err: object) -> Conversation:
        return Conversation(made, options.system)  # type: ignore[arg-type]

    monkeypatch.setattr(start, "load_conversation", load)
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def held(name: str, tail: bytes = b"") -> TranscriptWriter:
    """A transcript that another chat has open."""
    TranscriptWriter(Path(name), Header(), messages=TALK).close()
    with Path(name).open("ab") as file:
        file.write(tail)
    return resume(Path(name), lambda _: None, alone=True)[2]


def test_a_second_chat_is_refused_before_the_model_is_loaded_and_a_copy_goes_on(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = held("x.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(start, "load_conversation", lambda *_: pytest.fail("loaded a model for nothing"))
        with pytest.raises(InUseError, match=rf"^x.jsonl: is open in another chat \(pid {os.getpid()}, since "):
            run(options(message="c", resume=Path("x.jsonl")))
    before = Path("x.jsonl").read_bytes()
    assert run(options(message="c", resume=Path("x.jsonl"), save=Path("copy.jsonl"))) == 0
    assert Path("x.jsonl").read_bytes() == before
    assert said(Path("copy.jsonl")) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "the answer")]
    session = make_session("d")
    dispatch(session, "/load x.jsonl")
    assert dialogue_of(session) == [("user", "a"), ("assistant", "b")]
    writer.append(Message("user", "still mine"))
    writer.close()
    assert run(options(message="c", resume=Path("x.jsonl"))) == 0


def test_a_copy_of_a_file_that_is_cut_off_leaves_it_so(engine: ScriptedEngine) -> None:
    TranscriptWriter(Path("x.jsonl"), Header(), messages=TALK).close()
    with Path("x.jsonl").open("ab") as file:
        file.write(b'{"role": "us')
    before = Path("x.jsonl").read_bytes()
    assert run(options(message="c", resume=Path("x.jsonl"), save=Path("copy.jsonl"))) == 0
    assert Path("x.jsonl").read_bytes() == before
    assert len(said(Path("copy.jsonl"))) == 4


def test_the_same_file_named_otherwise_goes_on(engine: ScriptedEngine, home: Path) -> None:
    held("x.jsonl").close()
    Path("link.jsonl").symlink_to("x.jsonl")
    for name in (home / "x.jsonl", Path("link.jsonl")):
        assert run(options(message="c", resume=Path("x.jsonl"), save=name)) == 0
    assert len(said(Path("x.jsonl"))) == 6


def test_nobody_is_named_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = held("x.jsonl")
    monkeypatch.setattr(lock, "LOCKS", Path("nowhere"))
    with pytest.raises(InUseError, match=r"^x.jsonl: is open in another chat; leave that one"):
        resume(Path("x.jsonl"), alone=True)
    writer.close()
    with Path("x.jsonl").open() as file:
        assert holder(file.fileno()) is None


def test_a_file_system_without_locks_is_told(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(_handle: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told: list[str] = []
    autosave = Autosave.new(Path("x.jsonl"), Header(), told.append)
    autosave.sync(TALK)
    assert told == ["x.jsonl cannot be locked on this file system; do not open it in two chats at once"]
    autosave.sync([*TALK, Message("user", "c")])
    assert len(said(Path("x.jsonl"))) == 3 and len(told) == 1


def test_transcripts_and_their_new_folders_are_the_owners_alone(home: Path) -> None:
    autosave = Autosave.new(Path("new/deep/x.jsonl"), Header(), print)
    autosave.sync(TALK)
    autosave.sync(TALK[:1])
    assert mode(Path("new/deep/x.jsonl")) == 0o600
    assert (mode(Path("new")), mode(Path("new/deep"))) == (0o700, 0o700)
    session = make_session("ok")
    session.ask("a")
    dispatch(session, "/save copy.jsonl")
    convert(Path("copy.jsonl"), Path("out.json"))
    assert (mode(Path("copy.jsonl")), mode(Path("out.json"))) == (0o600, 0o600)
    write.write_whole(Path("measured.json"), b"{}", overwrite=False)
    assert mode(Path("measured.json")) == 0o644
    Path("copy.jsonl").chmod(0o644)  # as earlier versions made them
    resume(Path("copy.jsonl"))
    assert mode(Path("copy.jsonl")) == 0o600
    transcripts_folder().mkdir(parents=True)
    Autosave.new(new_transcript(), Header(), print).sync(TALK)
    assert mode(transcripts_folder()) == 0o700


def test_reading_alone_changes_no_rights(engine: ScriptedEngine) -> None:
    held("x.jsonl").close()
    Path("x.jsonl").chmod(0o644)
    assert run(options(message="c", resume=Path("x.jsonl"), save=Path("copy.jsonl"))) == 0
    dispatch(make_session(), "/load x.jsonl")
    assert mode(Path("x.jsonl")) == 0o644


def refuse_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: TranscriptWriter, message: object) -> None:
        raise LoopserveError("disk full")

    monkeypatch.setattr(TranscriptWriter, "append", full)
    monkeypatch.setattr(TranscriptWriter, "rewrite", full)


def test_a_dialogue_that_is_not_saved_at_the_end_is_exit_1(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        refuse_all(patch)
        assert talk(patch, "a\r/exit\r", save=Path("x.jsonl")) == 1
        assert "this dialogue is not saved: disk full" in capsys.readouterr().err
        assert run(options(message="b", save=Path("y.jsonl"))) == 1
    assert run(options(message="c", save=Path("z.jsonl"))) == 0


def test_a_loaded_dialogue_is_written_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    TranscriptWriter(Path("x.jsonl"), Header(), messages=TALK * 500).close()
    session = make_session("d", save=Path("own.jsonl"))
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle))[1])
    dispatch(session, "/load x.jsonl")
    assert session.autosave.path is not None
    assert len(read_dialogues(session.autosave.path)[0].messages) == 1000
    assert len(synced) == 2  # the file, and the folder with its name


def test_save_is_whole_or_nothing_and_leaves_what_others_did(monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session("one", "two")
    session.ask("a")

    def interrupted(_handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dispatch(session, "/save copy.jsonl")
    assert os.listdir() == []
    dispatch(session, "/save copy.jsonl")
    assert said(Path("copy.jsonl")) == [("user", "a"), ("assistant", "one")]
    writer = resume(Path("copy.jsonl"))[2]
    writer.append(Message("user", "theirs"))
    writer.close()
    with pytest.raises(UsageError, match=r"^copy.jsonl was changed since this chat wrote it; give another name"):
        dispatch(session, "/save copy.jsonl")
    assert said(Path("copy.jsonl"))[-1] == ("user", "theirs")


def test_a_copy_that_another_chat_has_open_is_not_replaced() -> None:
    session = make_session("one")
    session.ask("a")
    dispatch(session, "/save copy.jsonl")
    writer = resume(Path("copy.jsonl"), alone=True)[2]
    with pytest.raises(InUseError):
        dispatch(session, "/save copy.jsonl")
    writer.append(Message("user", "theirs"))
    assert len(said(Path("copy.jsonl"))) == 3


def test_a_working_folder_that_is_gone_costs_a_line_each(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    session = make_session("one", "two", save=Path("t.jsonl"))
    session.ask("a")
    shutil.rmtree(folder)
    for line in ("/save x.jsonl", "/read x.txt", "/load x.jsonl"):
        with pytest.raises(UsageError, match=f"^{line.split()[1]}: {MISSING}$"):
            dispatch(session, line)
    printed(session)
    session.ask("b")
    assert session.autosave.problem is None and session.autosave.path is not None
    assert session.autosave.path.parent == transcripts_folder()
    assert len(said(session.autosave.path)) == 4
    assert printed(session)[1].startswith("t.jsonl was removed or moved; the whole dialogue goes on in ")
    with pytest.raises(LoopserveError, match=MISSING):
        TranscriptWriter(Path("t.jsonl"), Header())


def test_a_chat_in_a_removed_folder_ends_before_the_model_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "load_conversation", lambda *_: pytest.fail("loaded a model for nothing"))
    folder = home / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(LoopserveError, match="^the working folder was removed; change to another one$"):
        run(options(message="a"))


def test_no_two_transcripts_share_a_cache() -> None:
    names = [
        "t",
        "t.jsonl",
        "t.txt",
        "t.json",
        "t.txt.jsonl",
        "t.transcript.jsonl",
        "t.transcript",
        "t.JSONL",
        ".jsonl",
    ]
    caches = {kv_file.beside(Path(name)).name for name in names}
    assert len(caches) == len(names)
    assert kv_file.beside(Path("t.jsonl")).name == "t.kv.safetensors"
    assert kv_file.beside(Path("t.txt")).name == "t.txt.transcript.kv.safetensors"


def test_a_cache_under_its_name_of_before_is_found_where_it_is_clear_whose() -> None:
    session = make_session("one")
    session.ask("a")
    dispatch(session, "/save t.txt --kv")
    Path("t.txt.transcript.kv.safetensors").rename("t.kv.safetensors")
    again = make_session()
    dispatch(again, "/load t.txt")
    assert engine_of(again).loads == 1
    Path("t.jsonl").touch()
    third = make_session()
    dispatch(third, "/load t.txt")
    assert engine_of(third).loads == 0
    assert "t.kv.safetensors may be the cache of t.jsonl, so it is not loaded" in printed(third)[1]


def test_a_copy_written_anew_without_its_cache_drops_the_old_one() -> None:
    session = make_session("one", "two")
    session.ask("a")
    Path("x.kv.safetensors").write_text("not of this chat's making")
    dispatch(session, "/save x.jsonl")
    assert Path("x.kv.safetensors").exists()
    dispatch(session, "/save x.jsonl --kv")
    printed(session)
    session.ask("b")
    dispatch(session, "/save x.jsonl")
    assert not Path("x.kv.safetensors").exists()
    assert printed(session)[1].splitlines()[-1] == (
        "removed x.kv.safetensors, which is of what was said before; add --kv to keep the cache of now"
    )
