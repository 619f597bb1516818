"""Two chats on one transcript: with locks the second is refused, without them neither loses a turn."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from forked import ended, fork, turn

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, open_file, read_dialogues, resume
from loopserve_cli.transcript.lock import InUseError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_ten_of_ten_second_chats_are_refused_by_name(tmp_path: Path) -> None:
    refused = 0
    for trial in range(10):
        path = tmp_path / f"{trial}.jsonl"
        TranscriptWriter(path, Header(), messages=turn(0)).close()
        opened, told = os.pipe()
        go_on, let = os.pipe()

        def first(path: Path = path, told: int = told, go_on: int = go_on) -> None:
            _, messages, writer = resume(path, alone=True)
            writer.rewrite([*messages, *turn(1)])  # another inode; the lock goes with it
            os.write(told, b".")
            os.read(go_on, 1)
            writer.append(Message("user", "the last"))

        child = fork(first)
        os.read(opened, 1)
        with pytest.raises(InUseError) as caught:
            resume(path, alone=True)
        assert str(caught.value).startswith(f"{path}: is open in another chat (pid {child}, since ")
        assert f"--resume {path} --save COPY.jsonl" in str(caught.value)
        refused += 1
        assert len(read_dialogues(path)[0].messages) == 4  # reading asks for no lock
        os.write(let, b".")
        assert ended(child) == 0
        assert len(resume(path, alone=True)[1]) == 5  # the lock ended with its process
        for end in (opened, told, go_on, let):
            os.close(end)
    assert refused == 10


def test_of_many_at_once_exactly_one_gets_the_file(tmp_path: Path) -> None:
    for trial in range(10):
        path = tmp_path / f"{trial}.jsonl"
        TranscriptWriter(path, Header(), messages=turn(0)).close()
        start, begin = os.pipe()
        results, told = os.pipe()
        done, finish = os.pipe()

        def chat(path: Path = path, start: int = start, told: int = told, done: int = done) -> None:
            os.read(start, 1)
            try:
                _, messages, writer = resume(path, alone=True)
            except InUseError:
                os.write(told, b"n")
            else:
                for number in range(3):
                    messages += turn(number)
                    writer.rewrite(messages)
                os.write(told, b"y")
            os.read(done, 1)  # hold it until all have asked

        children = [fork(chat) for _ in range(4)]
        os.write(begin, b"....")
        answers = b""
        while len(answers) < 4:
            answers += os.read(results, 4)
        os.write(finish, b"....")
        assert [ended(child) for child in children] == [0] * 4
        assert sorted(answers) == sorted(b"nnny")
        for end in (start, begin, results, told, done, finish):
            os.close(end)
        assert len(read_dialogues(path)[0].messages) == 8


def test_a_new_chat_of_the_same_second_takes_the_next_name(tmp_path: Path) -> None:
    path = tmp_path / "20260131-090000.jsonl"
    wrote = []
    for _ in range(8):

        def chat() -> None:
            told: list[str] = []
            autosave = Autosave.new(path, Header(), told.append)
            autosave.sync(turn(os.getpid()))
            assert autosave.problem is None
            taken = [] if autosave.path == path else [f"{path} was taken by another chat; saving to {autosave.path}"]
            assert told == taken

        wrote.append(fork(chat))
    assert [ended(child) for child in wrote] == [0] * 8
    kept = {read_dialogues(one)[0].messages for one in tmp_path.glob("*.jsonl")}
    assert kept == {tuple(turn(child)) for child in wrote}


class Chat:
    """A process that adds, takes back or rewrites when it is told to."""

    def __init__(self, path: Path, name: str, seed: int) -> None:
        hear, self.say = os.pipe()
        self.heard, tell = os.pipe()
        self.pid = fork(lambda: self._talk(path, name, random.Random(seed), hear, tell))
        os.close(hear)
        os.close(tell)
        assert os.read(self.heard, 1) == b"."

    def step(self, word: bytes) -> None:
        os.write(self.say, word)
        assert os.read(self.heard, 1) == b"."

    def result(self) -> Path:
        os.write(self.say, b"q")
        found = Path(os.read(self.heard, 4096).decode())
        assert ended(self.pid) == 0
        os.close(self.say)
        os.close(self.heard)
        return found

    @staticmethod
    def _talk(path: Path, name: str, choose: random.Random, hear: int, tell: int) -> None:
        told: list[str] = []
        _, messages, writer = resume(path)
        autosave = Autosave.going_on(writer, messages, told.append)
        messages = list(messages)
        number = 0
        os.write(tell, b".")
        while (word := os.read(hear, 1)) == b"s":
            if choose.random() < 0.3 and len(messages) > 2:
                del messages[-2:]
            else:
                number += 1
                messages += turn(number, name)
            autosave.sync(messages)
            os.write(tell, b".")
        assert word == b"q"
        autosave.sync(messages)
        assert autosave.problem is None and autosave.path is not None
        assert list(read_dialogues(autosave.path, lambda _: None)[0].messages) == messages
        os.write(tell, str(autosave.path).encode())


@pytest.mark.parametrize("trials", [pytest.param(30, id="ci"), pytest.param(500, id="slow", marks=pytest.mark.slow)])
def test_where_nothing_can_be_locked_neither_loses_a_turn(
    trials: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random interleavings; each chat finds at its end all that it said in the file that it names."""
    monkeypatch.setattr(open_file, "lock", lambda _handle: False)
    same = 0
    for trial in range(trials):
        path = tmp_path / f"{trial}.jsonl"
        TranscriptWriter(path, Header(), messages=turn(0)).close()
        choose = random.Random(trial)
        chats = [Chat(path, name, trial) for name in ("left", "right")]
        for _ in range(12):
            choose.choice(chats).step(b"s")
        same += len({chat.result() for chat in chats}) < 2
    print(f"{trials} trials, {same} pairs in one file")
    assert same == 0
