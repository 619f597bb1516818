"""The transcript writer: every finished line survives a kill, and a failed write changes nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_transcript_errors import without_rights

from loopserve_cli.errors import LoopserveError, TranscriptError
from loopserve_cli.messages import Message
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues, resume

HEADER = Header(model="demo", profile="full", created="2026-01-31T09:00:00+00:00", id="morning", extra={"seed": 3})
RECORD = TurnRecord(turn=1, ttft_ms=12.5, itl_ms=[1.0, 2.0], output_text="Gr\u00fc\u00df dich.")
TALK = [
    Message("system", "Be brief."),
    Message("user", "Hello.\nWho are you?"),
    Message("assistant", "Gr\u00fc\u00df dich.", record=RECORD),
    Message("user", "Why?"),
    Message("assistant", "", partial=True),
]


def written(path: Path) -> TranscriptWriter:
    writer = TranscriptWriter(path, HEADER)
    for message in TALK:
        writer.append(message)
    return writer


def test_what_is_appended_is_read_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "t.jsonl"
    written(path)
    first, second, *_ = path.read_text().splitlines()
    assert json.loads(first) == {
        "loopserve": 1,
        "id": "morning",
        "model": "demo",
        "profile": "full",
        "created": "2026-01-31T09:00:00+00:00",
        "seed": 3,
    }
    assert second == '{"role": "system", "content": "Be brief."}'
    (dialogue,) = read_dialogues(path, pytest.fail)
    assert (dialogue.id, list(dialogue.messages)) == ("morning", TALK)
    before = path.read_bytes()
    header, messages, writer = resume(path, pytest.fail)
    assert (header, messages) == (HEADER, TALK)
    assert path.read_bytes() == before
    writer.append(Message("user", "Go on."))
    assert path.read_bytes() == before + b'{"role": "user", "content": "Go on."}\n'


def test_every_append_is_on_the_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    writer = TranscriptWriter(path, HEADER)
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _handle: synced.append(path.read_bytes()))
    writer.append(Message("user", "Hello."))
    assert synced == [path.read_bytes()]
    assert synced[0].endswith(b'"Hello."}\n')


def test_a_kill_loses_no_finished_message(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    script = (
        "import sys, time; from pathlib import Path\n"
        "from loopserve_cli.messages import Message; from loopserve_cli.transcript import Header, TranscriptWriter\n"
        "writer = TranscriptWriter(Path(sys.argv[1]), Header())\n"
        "writer.append(Message('user', 'Hello.')); writer.append(Message('assistant', 'Hi.'))\n"
        "print('written', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    (dialogue,) = read_dialogues(path, pytest.fail)
    assert dialogue.messages == (Message("user", "Hello."), Message("assistant", "Hi."))


def test_resume_mends_a_last_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"role": "user", "cont')
    told: list[str] = []
    _, messages, writer = resume(path, told.append)
    assert messages == TALK
    assert told == [
        f"{path}:7: the last line is cut off (a process ended as it wrote it); the lines before it are kept"
    ]
    assert path.read_bytes() == whole
    writer.append(Message("user", "Go on."))
    assert len(read_dialogues(path, pytest.fail)[0].messages) == 6


def test_resume_ends_a_last_line_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    _, messages, writer = resume(path, pytest.fail)
    assert messages == TALK
    writer.append(Message("user", "Go on."))
    assert path.read_bytes().startswith(whole)
    assert len(read_dialogues(path, pytest.fail)[0].messages) == 6


def test_resume_of_a_chat_that_said_nothing_yet(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    TranscriptWriter(path, HEADER)
    header, messages, _ = resume(path, pytest.fail)
    assert (header, messages) == (HEADER, [])


def test_rewrite_replaces_the_messages_and_keeps_the_link_and_private(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "t.jsonl"
    real.touch()
    link.symlink_to(real)
    writer = TranscriptWriter(link, HEADER, overwrite=True)
    real.chmod(0o640)
    for message in TALK:
        writer.append(message)
    writer.rewrite(TALK[:3])
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert list(read_dialogues(link)[0].messages) == TALK[:3]
    writer.append(Message("user", "Another way."))
    assert [m.content for m in read_dialogues(link)[0].messages][3:] == ["Another way."]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["real.jsonl", "t.jsonl"]


def test_an_existing_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("mine")
    with pytest.raises(LoopserveError) as caught:
        TranscriptWriter(path, HEADER)
    assert str(caught.value) == f"{path}: exists already; give another name"
    assert path.read_text() == "mine"
    TranscriptWriter(path, HEADER, overwrite=True)
    assert path.read_text().startswith('{"loopserve": 1')


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message("user", " "), "content is empty; write something or remove the message"),
        (
            Message("assistant", "Hi."),
            "role is assistant, but a dialogue begins with the user; put the question before it",
        ),
        (Message("user", "\udc80"), "content holds half a character (\\udc80); remove it or write the whole pair"),
    ],
)
def test_what_the_reader_would_refuse_is_not_written(message: Message, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    writer = TranscriptWriter(path, HEADER)
    before = path.read_bytes()
    for write in (writer.append, lambda m: writer.rewrite([m])):
        with pytest.raises(TranscriptError) as caught:
            write(message)
        assert str(caught.value) == f"{path}: message 1: {expected}"
    assert path.read_bytes() == before


def test_a_file_that_was_removed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    writer = TranscriptWriter(path, HEADER)
    path.unlink()
    with pytest.raises(LoopserveError) as caught:
        writer.append(TALK[0])
    assert str(caught.value) == f"{path}: was removed or moved while in use; save the dialogue under another name"
    writer.rewrite(TALK)
    assert list(read_dialogues(path)[0].messages) == TALK


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    writer = written(path)
    before = path.read_bytes()
    real_write = os.write
    left = 10

    def write(handle: int, data: memoryview) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real_write(handle, data[:left])
        left -= done
        return done

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        for step in (lambda: writer.append(Message("user", "Go on.")), lambda: writer.rewrite(TALK[:1])):
            left = 10
            with pytest.raises(LoopserveError) as caught:
                step()
            assert str(caught.value) == f"{path}: cannot be written: No space left on device; free some space"
            assert path.read_bytes() == before
        left = 10
        with pytest.raises(LoopserveError):
            TranscriptWriter(tmp_path / "other.jsonl", HEADER)
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]
    writer.append(Message("user", "Go on."))
    assert len(read_dialogues(path, pytest.fail)[0].messages) == 6


def test_a_real_limit_of_the_system(tmp_path: Path) -> None:
    """The kernel itself cuts a write at 4 KiB; the finished messages stay readable."""
    path = tmp_path / "t.jsonl"
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from loopserve_cli.messages import Message; from loopserve_cli.transcript import Header, TranscriptWriter\n"
        "from loopserve_cli.errors import LoopserveError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "writer = TranscriptWriter(Path(sys.argv[1]), Header())\n"
        "writer.append(Message('user', 'Hello.'))\n"
        "try:\n    writer.append(Message('assistant', 'x' * 9000))\n"
        "except LoopserveError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}: cannot be written: File too large; free some space\n"
    assert read_dialogues(path, pytest.fail)[0].messages == (Message("user", "Hello."),)


def test_an_interrupted_append_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    writer = written(path)
    before = path.read_bytes()

    def interrupted(_handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append(Message("user", "Go on."))
    assert path.read_bytes() == before


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    written(Path("t.jsonl"))
    Path("t.jsonl").chmod(0o444)
    locked = Path("locked")
    locked.mkdir(mode=0o555)
    expected = "no permission to write it; change its mode or give another name"
    with without_rights():
        for name, step in (
            ("t.jsonl", lambda: resume(Path("t.jsonl"))),
            ("locked/t.jsonl", lambda: TranscriptWriter(locked / "t.jsonl", HEADER)),
            ("locked/in/t.jsonl", lambda: TranscriptWriter(locked / "in" / "t.jsonl", HEADER)),
        ):
            with pytest.raises(LoopserveError) as caught:
                step()
            assert str(caught.value) == f"{name}: {expected}"


@pytest.mark.parametrize(
    ("name", "overwrite", "expected"),
    [
        ("folder", True, "is a folder; give a file name"),
        ("folder", False, "exists already; give another name"),
        ("file/t.jsonl", False, "cannot be written: a part of its path is a file; give another name"),
        ("file/deep/t.jsonl", False, "cannot be written: a part of its path is a file; give another name"),
        ("pipe", True, "cannot be written: not a regular file; give another name"),
    ],
)
def test_places_that_hold_no_file(
    name: str, overwrite: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    os.mkfifo("pipe")
    with pytest.raises(LoopserveError) as caught:
        TranscriptWriter(Path(name), HEADER, overwrite)
    assert str(caught.value) == f"{name}: {expected}"
