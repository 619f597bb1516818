"""Another program replaces, edits, cuts, removes the transcript meanwhile: its work stays, and the chat goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import turn

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, read_dialogues

TALK = [*turn(3), *turn(4)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def begun(path: Path, told: list[str]) -> Autosave:
    autosave = Autosave.new(path, Header(), told.append)
    autosave.sync(TALK[:2])
    return autosave


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other2")
    path.with_name("other2").write_text("theirs")


def edited(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"X")


def added(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"role": "user", "content": "theirs"}\n')


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def grown(path: Path) -> None:
    """Emptied and written to the same length."""
    size = path.stat().st_size
    path.write_bytes(b"x" * size)


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (replaced, "was replaced by another file"),
    (replaced_by_a_link, "was replaced by another file"),
    (edited, "was edited by another program"),
    (grown, "was edited by another program"),
    (added, "was added to by another program"),
    (cut, "was cut off"),
    (emptied, "was cut off"),
]
LATER = {
    "append": [*TALK[:2], TALK[2]],
    "rewrite": TALK[2:],
}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize(("change", "what"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_the_chat_goes_on_in_a_new_file(change: Callable[[Path], None], what: str, later: str, tmp_path: Path) -> None:
    path, new = tmp_path / "t.jsonl", tmp_path / "t-2.jsonl"
    told: list[str] = []
    autosave = begun(path, told)
    change(path)
    theirs = path.read_bytes()
    autosave.sync(LATER[later])
    assert told == [f"{path} {what}; the whole dialogue goes on in {new}"]
    assert path.read_bytes() == theirs
    assert autosave.path == new and autosave.problem is None
    autosave.sync(TALK)
    assert list(read_dialogues(new, pytest.fail)[0].messages) == TALK
    assert path.read_bytes() == theirs
    change(new)  # and once more
    autosave.sync(TALK[:2])
    assert autosave.path == tmp_path / "t-3.jsonl" and len(told) == 2
    assert list(read_dialogues(tmp_path / "t-3.jsonl", pytest.fail)[0].messages) == TALK[:2]


@pytest.mark.parametrize("later", LATER)
def test_a_removed_or_moved_file_is_made_again_whole(later: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for remove in (os.unlink, lambda one: os.rename(one, tmp_path / "moved.jsonl")):
        told: list[str] = []
        autosave = begun(path, told)
        remove(path)
        autosave.sync(LATER[later])
        assert told == [f"{path} was removed or moved; the whole dialogue goes on in {path}"]
        assert list(read_dialogues(path, pytest.fail)[0].messages) == LATER[later]
        autosave.close()
        path.unlink()
    assert list(read_dialogues(tmp_path / "moved.jsonl")[0].messages) == TALK[:2]


@pytest.mark.parametrize("later", LATER)
def test_a_removed_folder_is_not_made_again(later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    told: list[str] = []
    autosave = begun(Path("t.jsonl"), told)
    shutil.rmtree(folder)
    autosave.sync(LATER[later])
    assert autosave.path is not None and autosave.path.parent == tmp_path / "state" / "loopserve" / "transcripts"
    assert told == [f"t.jsonl was removed or moved; the whole dialogue goes on in {autosave.path}"]
    assert not folder.exists()
    assert list(read_dialogues(autosave.path)[0].messages) == LATER[later]


def test_a_file_that_was_only_touched_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    told: list[str] = []
    autosave = begun(path, told)
    for act in (os.utime, lambda one: os.chmod(one, 0o644), lambda one: one.write_bytes(one.read_bytes())):
        act(path)
        autosave.sync([*TALK[:2], Message("user", "more")])
        autosave.sync(TALK[:2])
    assert told == [] and autosave.path == path
    assert list(read_dialogues(path)[0].messages) == TALK[:2]


def test_an_edit_of_the_same_length_at_once_after_a_write_is_seen(tmp_path: Path) -> None:
    """The system's stamps of time come in ticks; both writes fall into one."""
    missed = 0
    for trial in range(200):
        path = tmp_path / f"{trial}.jsonl"
        told: list[str] = []
        autosave = begun(path, told)
        edited(path)
        autosave.sync(TALK)
        missed += len(told) != 1
        autosave.close()
    print(f"200 edits, {missed} missed")
    assert missed == 0
