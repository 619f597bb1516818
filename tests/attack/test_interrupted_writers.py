"""Ctrl-C at random moments of a chat's saving, which goes on: nothing is lost, whatever was cut short."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from forked import ended, fork, turn

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.interrupts import Interrupts
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, resume


def chat(path: Path, seed: int, tell: int) -> None:
    """Saves after every step until SIGTERM; then says where its dialogue is, and how often that changed."""
    choose = random.Random(seed)
    interrupts = Interrupts()
    pressed = 0
    told: list[str] = []
    autosave = Autosave.new(path, Header(), told.append)
    messages: list[Message] = []
    step = 0
    with interrupts.installed():
        os.write(tell, b".")
        while interrupts.ending is None:
            step += 1
            if choose.random() < 0.4 and messages:
                del messages[-2:]
            else:
                messages += turn(step)
            with contextlib.suppress(KeyboardInterrupt), interrupts.raising():
                autosave.sync(messages)
            pressed += interrupts.pressed
            interrupts.clear()
        autosave.sync(messages)
    assert autosave.problem is None and autosave.path is not None
    assert resume(autosave.path, pytest.fail)[1] == messages
    os.write(tell, json.dumps([pressed, len(told)]).encode())


@pytest.mark.parametrize("trials", [pytest.param(25, id="ci"), pytest.param(500, id="slow", marks=pytest.mark.slow)])
def test_an_interrupted_chat_saves_on(trials: int, tmp_path: Path) -> None:
    pressed = moved = lost = left = 0
    for trial in range(trials):
        folder = tmp_path / str(trial)
        folder.mkdir()
        hear, tell = os.pipe()
        child = fork(lambda folder=folder, trial=trial, tell=tell: chat(folder / "t.jsonl", trial, tell))
        assert os.read(hear, 1) == b"."
        choose = random.Random(trial)
        for _ in range(15):
            time.sleep(choose.uniform(0.001, 0.01))
            os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        lost += ended(child) != 0
        os.close(tell)
        counts = json.loads(os.read(hear, 100) or b"[0, 0]")
        os.close(hear)
        pressed, moved = pressed + counts[0], moved + counts[1]
        left += len(list(folder.glob(".*")))
    print(f"{trials} chats, {pressed} interrupts, {lost} lost, {moved} went on in a new file, {left} copies left")
    assert (lost, moved, left) == (0, 0, 0)
    assert pressed > 5 * trials
