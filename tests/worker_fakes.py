"""Engines that workers open by name, and a pool within this process: both end where a test wants it."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from replay_fakes import FakeEngine

from loopserve_cli.config import ReplayOptions
from loopserve_cli.engine.share import Share
from loopserve_cli.errors import LoopserveError, ModelError
from loopserve_cli.replay.workers.messages import Ended, Gone, Message
from loopserve_cli.replay.workers.task import Job, Task
from loopserve_cli.replay.workers.worker import Worker


def open_fake(options: ReplayOptions, say: Callable[[str], None]) -> FakeEngine:
    """Answers at once; dies at "die", and at "once PATH" where nobody has died there before."""
    say("loading fake")
    return FakeEngine(options.profiles[0], die_if_asked)


def open_broken(options: ReplayOptions, say: Callable[[str], None]) -> FakeEngine:
    raise ModelError("no such model")


def open_and_die(options: ReplayOptions, say: Callable[[str], None]) -> FakeEngine:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_if_asked(text: str) -> None:
    word, _, path = text.partition(" ")
    if word == "once" and not Path(path).exists():
        Path(path).touch()
        word = "die"
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "refuse":
        raise LoopserveError("no room")


class InlinePool:
    """A pool whose workers run here, one message at a time; `dies(worker, message)` ends one after that message."""

    about = "workers of a test"

    def __init__(
        self, job: Job, workers: int, dies: Callable[[int, Message], bool] = lambda worker, message: False
    ) -> None:
        self.shares = [Share("cpu", 1)] * workers
        self.job = job
        self.dies = dies
        self.started: list[tuple[int, str]] = []
        self.given: list[tuple[int, str]] = []
        self.ended = False
        self._workers: dict[int, Worker] = {}
        self._inbox: deque[tuple[int, Message]] = deque()

    def start(self, worker: int, dtype: str) -> None:
        self.started.append((worker, dtype))
        said: list[Message] = []
        self._workers[worker] = Worker(self.job.on(self.shares[worker], dtype), said.append)
        self._workers[worker]._tell = self._telling(worker)  # what is said goes to the inbox until it dies
        self._workers[worker].load()

    def give(self, worker: int, task: Task) -> bool:
        self.given.append((worker, task.script.id))
        self._workers[worker]._tell = self._telling(worker)
        self._workers[worker].run(task)
        return True

    def next(self) -> tuple[int, Message]:
        return self._inbox.popleft()

    def end(self) -> Iterator[tuple[int, Message]]:
        self.ended = True
        for worker in self._workers.values():
            worker.close()
        while self._inbox:
            yield self._inbox.popleft()

    def _telling(self, worker: int) -> Callable[[Message], None]:
        dead = False

        def tell(message: Message) -> None:
            nonlocal dead
            if dead:
                return
            self._inbox.append((worker, message))
            if self.dies(worker, message):
                dead = True
                self._inbox.append((worker, Gone("was ended by SIGKILL")))

        return tell


def at_turn(dialogue: str, turn: int, times: int = 1) -> Callable[[int, Message], bool]:
    """Dies when this turn has ended, so many times."""
    left = [times]

    def dies(worker: int, message: Message) -> bool:
        if isinstance(message, Ended) and left[0]:
            record = message.turn.record
            if (record.conversation_id, record.turn) == (dialogue, turn):
                left[0] -= 1
                return True
        return False

    return dies
