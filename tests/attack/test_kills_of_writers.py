"""SIGKILL at random moments of appending, rewriting and copying: the file parses, and holds every finished turn."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from forked import ended, fork, turn

from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues, resume


def write_on(path: Path, seed: int, log: int) -> None:
    """Turns, undos and copies without end; the log has each state before it is written, and "done" after."""
    choose = random.Random(seed)
    writer = TranscriptWriter(path, Header())
    turns: list[int] = []
    for step in range(10**6):
        kind = choose.random()
        if kind < 0.5 or not turns:
            turns.append(step)
            tell(log, {"turns": turns})
            for message in turn(step):
                writer.append(message)
        elif kind < 0.75:
            del turns[-1]
            tell(log, {"turns": turns})
            writer.rewrite(dialogue(turns))
        else:
            TranscriptWriter(path.with_name(f"copy-{step}.jsonl"), Header(), messages=dialogue(turns)).close()
            tell(log, {"copied": step, "of": turns})
            continue
        tell(log, {"done": turns})


def tell(log: int, row: dict[str, object]) -> None:
    os.write(log, json.dumps(row).encode() + b"\n")


def dialogue(turns: list[int]) -> list[Message]:
    return [message for number in turns for message in turn(number)]


@pytest.mark.parametrize("trials", [pytest.param(300, id="ci"), pytest.param(5000, id="slow", marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing(trials: int, tmp_path: Path) -> None:
    lost = wrong = left = copies = cut = stale = 0
    for trial in range(trials):
        folder = tmp_path / str(trial)
        folder.mkdir()
        path, log = folder / "t.jsonl", folder / "log"
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        child = fork(lambda path=path, trial=trial, handle=handle: write_on(path, trial, handle))
        os.close(handle)
        time.sleep(random.Random(trial).uniform(0.002, 0.03))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        rows = [json.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        if not path.exists():
            lost += bool(rows)
            continue
        finished = [row["done"] for row in rows if "done" in row][-1:] or [[]]
        begun = [row["turns"] for row in rows if "turns" in row][-1:] or [[]]
        stale += len(list(folder.glob(".*.tmp")))
        told: list[str] = []
        messages = resume(path, told.append, alone=True)[1]
        cut += len(told)
        # A turn's question may be there before its answer.
        allowed = [dialogue(finished[0]), dialogue(begun[0]), dialogue(begun[0])[:-1]]
        lost += messages not in allowed
        left += len(list(folder.glob(".*.tmp")))
        reported = {row["copied"]: row["of"] for row in rows if "copied" in row}
        for number, turns in reported.items():
            copies += 1
            wrong += list(read_dialogues(folder / f"copy-{number}.jsonl", pytest.fail)[0].messages) != dialogue(turns)
        for copy in folder.glob("copy-*.jsonl"):  # also one that was cut short: whole, or not there
            wrong += not read_dialogues(copy, pytest.fail)[0].messages
    print(
        f"{trials} kills: {lost} lost, {wrong} of {copies} copies wrong, {stale} copies stale, {left} left, {cut} cut"
    )
    assert (lost, wrong, left) == (0, 0, 0)


def test_a_dead_writers_copy_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    from loopserve_cli.transcript.write import write_whole

    path = tmp_path / "t.jsonl"
    TranscriptWriter(path, Header(), messages=turn(0)).close()
    dead, mine = tmp_path / ".t.jsonl.01234567.tmp", tmp_path / ".t.jsonl.mine.tmp"
    living = tmp_path / ".t.jsonl.89abcdef.tmp"
    both = tmp_path / ".t.jsonl.00000000.tmp"  # a kill between naming the file and removing its temporary name
    for file in (dead, mine, living):
        file.write_text("x")
    os.link(path, both)
    locked, told = os.pipe()
    go_on, let = os.pipe()

    def hold() -> None:
        import fcntl

        handle = os.open(living, os.O_RDWR)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(told, b".")
        os.read(go_on, 1)

    child = fork(hold)
    os.read(locked, 1)
    writer = resume(path)[2]
    assert sorted(tmp_path.iterdir()) == sorted([path, mine, living])
    os.write(let, b".")
    assert ended(child) == 0
    writer.rewrite(turn(1))
    assert sorted(tmp_path.iterdir()) == sorted([path, mine])
    dead.write_text("x")
    write_whole(path, b"{}\n", overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted([path, mine])
