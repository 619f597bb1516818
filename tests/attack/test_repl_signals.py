"""Signals at aimed and random moments of a chat: nothing finished is lost, and the terminal stays usable."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from forked_chat import ANSWER, ForkedChat

DONE = [("user", "first"), ("assistant", ANSWER)]
MOMENTS = ("loading", "prompt", "prefill", "decode", "save", "undo")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129}


def strike(folder: Path, moment: str, number: int, wait: float) -> list[str]:
    """One chat that is hit once; what is wrong afterwards."""
    folder.mkdir()
    chat = ForkedChat(folder, hook=(lambda engine: time.sleep(5)) if moment == "loading" else (lambda engine: None))
    wrong: list[str] = []
    try:
        if moment == "loading":
            time.sleep(0.1 + wait)
            chat.kill(number)
            code = chat.ended()
            if number != signal.SIGKILL and (code != 128 + number or not chat.usable()):
                wrong.append(f"code {code}, usable {chat.usable()}")
            return wrong
        chat.prompts(1)
        chat.type("first\r")
        chat.prompts(2)
        chat.type({"prompt": "half a li", "save": "/save copy.jsonl\r", "undo": "/undo\r"}.get(moment, "second\r"))
        if moment == "prefill":
            time.sleep(0.15)
        elif moment == "decode":
            chat.wait_for("w3", times=2)
        time.sleep(wait)
        chat.kill(number)
        if number == signal.SIGINT:
            time.sleep(0.35)
            chat.type("\x03")  # clears what came back into the line
            time.sleep(0.05)
            chat.type("/exit\r")
        code = chat.ended()
        said = chat.said()
        if "Traceback" in chat.screen:
            wrong.append("a traceback")
        if code != CODES.get(signal.Signals(number), 0):
            wrong.append(f"code {code}")
        if said[:2] != DONE and not (moment == "undo" and said == []):
            wrong.append(f"lost: {said}")
        if moment in ("prefill", "decode") and number != signal.SIGINT and said[2:3] != [("user", "second")]:
            wrong.append(f"the question is lost: {said}")
        if moment == "decode" and number in (signal.SIGTERM, signal.SIGHUP) and not said[3:]:
            wrong.append("the partial answer is lost")
        if number != signal.SIGKILL and not chat.usable():
            wrong.append("the terminal is not usable")
        return wrong
    finally:
        chat.close()


def attack(folder: Path, trials: int, seed: int) -> None:
    chance = random.Random(seed)
    failures = []
    for trial in range(trials):
        moment, number = MOMENTS[trial % len(MOMENTS)], SIGNALS[trial // len(MOMENTS) % len(SIGNALS)]
        wait = chance.uniform(0.0, 0.05)
        for line in strike(folder / str(trial), moment, number, wait):
            failures.append(f"{signal.Signals(number).name} at {moment} + {wait:.3f} s: {line}")
    print(f"{trials} kills: {len(failures)} wrong")
    assert not failures, "\n".join(failures)


def test_sixty_signals_lose_nothing(tmp_path: Path) -> None:
    attack(tmp_path, 60, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_five_hundred_signals_lose_nothing(tmp_path: Path) -> None:
    attack(tmp_path, 500, seed=2)
