"""A chat with the demo model is killed at random moments: no finished turn is lost, and it goes on as before."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from attack.forked_chat import ForkedChat

FACT, QUESTION, ROOM = "The room of Miro is 417.", "What is the room of Miro?", "417"
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
    lost = wrong = crashed = 0
    for number in range(TRIALS):
        folder = tmp_path / str(number)
        folder.mkdir()
        by, line = chance.choice(list(ENDS)), chance.choice(list(STEPS))
        status, said, usable = killed(folder, by, line, chance.random() * STEPS[line], chance.choice(VIEWS))
        crashed += status != ENDS[by] or not (usable or by == signal.SIGKILL)
        lost += said[0] != ("user", FACT) or (line != "/retry" and said[1][0] != "assistant")
        wrong += ROOM not in next_answer(folder)
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


def next_answer(folder: Path) -> str:
    """What the chat that goes on with the file answers to the question."""
    chat = ForkedChat(folder, resumed=True, real="none")
    chat.prompts(1)
    chat.type(QUESTION + "\r")
    chat.prompts(2)
    chat.type("/quit\r")
    assert chat.ended() == 0
    answer = chat.said()[-1][1]
    chat.close()
    return answer
