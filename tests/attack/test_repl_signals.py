"""Signals at aimed and random moments of a chat: nothing finished is lost, and the terminal stays usable."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from attack.forked_chat import ANSWER, ForkedChat
from chat_fakes import ScriptedEngine
from prompt_toolkit import PromptSession

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
def test_five_hundred_signals_lose_nothing(tmp_path: Path) -> None:
    attack(tmp_path, 500, seed=2)


def press_at_line(count: int) -> Any:
    """In the child: SIGINT when so many lines of the chat's own code were run since the first prompt returned."""

    def hook(engine: ScriptedEngine) -> None:
        prompt, left = PromptSession.prompt, [count]

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            if not frame.f_globals.get("__name__", "").startswith("loopserve_cli.chat"):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    sys.settrace(None)
                    os.kill(os.getpid(), signal.SIGINT)
            return trace

        def traced(self: PromptSession[str], **given: Any) -> str:
            line = prompt(self, **given)
            if left[0] == count:
                frame: FrameType | None = sys._getframe(1)
                while frame is not None:
                    frame.f_trace = trace
                    frame = frame.f_back
                sys.settrace(trace)
            return line

        PromptSession.prompt = traced  # type: ignore[method-assign, assignment]

    return hook


@pytest.mark.parametrize("line", ["hello", "/tokens"])
def test_ctrl_c_between_prompt_and_command_never_ends_the_chat(line: str, tmp_path: Path) -> None:
    wrong = []
    for count in range(1, 61, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        chat = ForkedChat(folder, press_at_line(count))
        chat.prompts(1)
        chat.type(f"{line}\r")
        chat.prompts(2)
        chat.type(" and on\r")
        chat.prompts(3)
        chat.type("/exit\r")
        code, said = chat.ended(), chat.said()
        if code or "Traceback" in chat.screen or not chat.usable() or not said or said[-1] != ("assistant", ANSWER):
            wrong.append(f"line {count}: code {code}, {said}, {chat.screen[-300:]}")
        chat.close()
    print(f"30 presses between prompt and {line}: {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
