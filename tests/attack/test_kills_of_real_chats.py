"""A chat with the demo model is killed at random moments: no finished turn is lost, and it goes on as before."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import cast

import pytest
from chat_fakes import FULL
from forked_chat import ForkedChat

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import load
from loopserve_cli.messages import Message, Role

FACT, QUESTION = "The room of Miro is 417.", "What is the room of Miro?"
ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129}
VIEWS = ("none", "simple", "dashboard")
# What is typed before the signal, and up to how many seconds it takes.
STEPS = {
    "": 1.0,
    "Tell me of all. " + "The room of Ana is 311. " * 60: 0.6,
    "Where is the room of Miro?": 0.1,
    "/save --kv copy.jsonl": 0.1,
    "/retry": 0.1,
}
TRIALS = 12


@pytest.mark.slow
def test_signals_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(11)
    lost = crashed = 0
    went_on = []
    for number in range(TRIALS):
        folder = tmp_path / str(number)
        folder.mkdir()
        by, line = chance.choice(list(ENDS)), chance.choice(list(STEPS))
        status, said, usable = killed(folder, by, line, chance.random() * STEPS[line], chance.choice(VIEWS))
        crashed += status != ENDS[by] or not (usable or by == signal.SIGKILL)
        lost += said[0] != ("user", FACT) or (line != "/retry" and said[1][0] != "assistant")
        went_on.append(gone_on(folder))
    # Only now: a process that has computed is not forked.
    wrong = sum(dialogue[-1] != ("assistant", uninterrupted(dialogue[:-2])) for dialogue in went_on)
    print(f"{TRIALS} trials: {lost} lost, {crashed} crashed, {wrong} wrong")
    assert (lost, crashed, wrong) == (0, 0, 0)


def killed(
    folder: Path, by: signal.Signals, line: str, after: float, view: str
) -> tuple[int, list[tuple[str, str]], bool]:
    """One exchange, then the line and the signal: its status, its file, and whether the terminal is usable."""
    chat = ForkedChat(folder, real=view)
    chat.prompts(1)
    chat.type(FACT + "\r")
    chat.prompts(2)
    if line:
        chat.type("\x1b[200~" + line + "\x1b[201~\r")
    chat.look(0.0)
    time.sleep(after)
    chat.kill(by)
    status = chat.ended()
    found = status, chat.said(), chat.usable()
    chat.close()
    return found


def gone_on(folder: Path) -> list[tuple[str, str]]:
    """The dialogue after a chat went on with the file by the question."""
    chat = ForkedChat(folder, resumed=True, real="none")
    chat.prompts(1)
    chat.type(QUESTION + "\r")
    chat.prompts(2)
    chat.type("/quit\r")
    assert chat.ended() == 0
    said = chat.said()
    chat.close()
    return said


def uninterrupted(before: list[tuple[str, str]]) -> str:
    """What a chat that was never killed answers to the question after the same messages."""
    conversation = Conversation(Engine(load(ModelOptions()), FULL))
    conversation.load([Message(cast("Role", role), content) for role, content in before])
    record = list(conversation.ask(QUESTION, SamplingOptions()))[-1].record
    return record.output_text
