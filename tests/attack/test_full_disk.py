"""A disk that fills up at any byte: every write is whole or not there, and is made up for when there is room."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import ended, fork, turn

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.errors import LoopserveError
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues

HEADER = Header(created=None)
FIRST, SECOND = turn(3), turn(4)


def room_for(size: int) -> None:
    """No file may grow beyond that many bytes; the kernel refuses the rest of a write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def attack(folder: Path, size: int) -> None:
    """One chat and one copy under one limit."""
    path, copy = folder / "t.jsonl", folder / "copy.jsonl"
    told: list[str] = []
    autosave = Autosave.new(path, HEADER, told.append)
    states: list[list[object]] = []
    for messages in (FIRST[:1], FIRST, [*FIRST, *SECOND], SECOND):
        room_for(size)
        autosave.sync(messages)
        room_for(resource.RLIM_INFINITY)
        if autosave.problem is None:
            states.append(messages)
        assert on_disk(path) == (states[-1] if states else None), (size, messages)
    room_for(size)
    try:
        TranscriptWriter(copy, HEADER, messages=FIRST).close()
    except LoopserveError as error:
        assert str(error) == f"{copy}: cannot be written: File too large; free some space"
        assert not copy.exists()
    else:
        assert on_disk(copy) == FIRST
    room_for(resource.RLIM_INFINITY)
    autosave.sync(SECOND)
    assert autosave.problem is None
    assert on_disk(path) == SECOND
    assert len(told) in (0, 2) or told[0::2] == [told[0]] * len(told[0::2]), told
    assert not list(folder.glob(".*"))


def on_disk(path: Path) -> list[object] | None:
    return list(read_dialogues(path, pytest.fail)[0].messages) if path.exists() else None


def test_every_size_of_file_that_the_kernel_may_refuse(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    TranscriptWriter(whole, HEADER, messages=[*FIRST, *SECOND]).close()
    longest = whole.stat().st_size + 2

    def run() -> None:
        for size in range(longest):
            folder = tmp_path / str(size)
            folder.mkdir()
            attack(folder, size)
            shutil.rmtree(folder)

    assert ended(fork(run)) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["whole.jsonl"]


SCRIPT = """
import sys
from pathlib import Path
from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues
folder = Path(sys.argv[1])
path = folder / "t.jsonl"
told, messages, saved = [], [], []
autosave = Autosave.new(path, Header(), told.append)
for number in range(60):
    messages += [Message("user", "q" * 700), Message("assistant", "a" * 900)]
    autosave.sync(messages)
    if autosave.problem is None:
        saved = list(messages)
    assert list(read_dialogues(path)[0].messages) == saved
    try:
        TranscriptWriter(folder / f"copy{number}.jsonl", Header(), messages=messages).close()
    except LoopserveError as error:
        assert "No space left on device; free some space" in str(error), error
        assert not (folder / f"copy{number}.jsonl").exists()
assert saved and autosave.problem is not None and "No space left" in autosave.problem
assert len(told) == 1, told
for copy in folder.glob("copy*.jsonl"):
    assert read_dialogues(copy)[0].messages
    copy.unlink()
autosave.sync(messages)
assert autosave.problem is None and list(read_dialogues(path)[0].messages) == messages
assert [p.name for p in folder.iterdir()] == ["t.jsonl"], list(folder.iterdir())
print("whole")
"""


def test_a_small_file_system_that_is_full(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=256k none {place}"
    unshare = ["unshare", "-rm", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("no tmpfs may be mounted here")
    command = f'{mount} && exec "$0" -c "$1" {place}'
    done = subprocess.run([*unshare, command, sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("whole\n", "")
