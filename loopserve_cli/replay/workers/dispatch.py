"""Gives every dialogue to a worker, and bears the death of workers: a dialogue is tried twice.

The turns that had ended in the first try count, as with a run that is resumed: the second goes on at the first one
that is missing; a live history begins anew, and then the later turns count.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.errors import LoopserveError
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.progress import DialogueTurn
from loopserve_cli.replay.completed import completed
from loopserve_cli.replay.missing import turns_to_do
from loopserve_cli.replay.variant import failed
from loopserve_cli.replay.workers.messages import (
    Broke,
    Doing,
    Ended,
    Gone,
    Idle,
    LeftOut,
    Loaded,
    Loading,
    Message,
    Warned,
)
from loopserve_cli.replay.workers.pool import Pool
from loopserve_cli.replay.workers.task import Task
from loopserve_cli.stats import versions

# A dialogue that ends so many workers is at fault; so is a model that ends as many while it is loaded.
TRIES = 2


class Hearer(Protocol):
    """Who keeps and shows what workers tell."""

    def loading(self, line: str) -> None:
        """What the first worker does before its first turn."""

    def loaded(self, worker: int, loaded: Loaded) -> None:
        """A worker has the model; raises LoopserveError where it is another one than before."""

    def doing(self, worker: int, what: str) -> None:
        """What a worker is at; nothing when it is idle."""

    def ended(self, turn: Measured) -> None:
        """A turn is over: it is to be kept."""

    def left_out(self, task: Task, turns: int) -> None:
        """So many last turns of the dialogue are not run."""

    def again(self, dialogue: str, to_do: Mapping[DialogueTurn, int]) -> None:
        """A dialogue was lost in mid-run: of its turns these are still to be told of, so often each."""

    def warn(self, line: str) -> None:
        """Something that the user should not miss."""


@dataclass(slots=True)
class Try:
    """A dialogue that a worker is at, and its turns that have ended since."""

    task: Task
    ended: list[Measured] = field(default_factory=list)


class Dispatch:
    """One run over a pool."""

    def __init__(self, pool: Pool, options: ReplayOptions, tasks: Sequence[Task], hearer: Hearer) -> None:
        """Nothing is started yet."""
        self._pool = pool
        self._options = options
        self._hearer = hearer
        self._waiting = deque(tasks)
        self._at: dict[int, Try] = {}
        self._loading: set[int] = set()
        self._idle: set[int] = set()
        self._lost: Counter[str] = Counter()
        self._lost_loading = 0
        self._first: Loaded | None = None

    def run(self) -> None:
        """Until every dialogue is done; whatever ends it, workers are ended, and turns that they told of are kept."""
        try:
            self._staff()
            while self._waiting or self._at:
                self._hear(*self._pool.next())
        finally:
            for _, message in self._pool.end():
                if isinstance(message, Ended):
                    self._hearer.ended(message.turn)

    def _staff(self) -> None:
        """Start as many workers as there is work for.

        Where the number format is measured the first one does that, and the others take what it chose: they would
        disturb each other, and might choose otherwise.
        """
        dtype, shares = self._options.model.dtype, self._pool.shares
        if dtype == "auto" and shares[0].device == "cpu":
            if self._first is not None:
                dtype = self._first.dtype
            else:
                shares = shares[:1]
        there = self._loading | self._idle | set(self._at)
        for worker in range(len(shares)):
            if worker not in there and len(there) < len(self._waiting) + len(self._at):
                there.add(worker)
                self._loading.add(worker)
                self._pool.start(worker, dtype)
                self._hearer.doing(worker, "loads the model")

    def _hear(self, worker: int, message: Message) -> None:
        match message:
            case Loading(line):
                if self._first is None and worker == 0:
                    self._hearer.loading(line)
            case Loaded():
                self._hearer.loaded(worker, message)
                if self._first is None:
                    self._first = message
                    self._staff()
            case Idle():
                self._at.pop(worker, None)
                self._loading.discard(worker)
                self._idle.add(worker)
                self._hearer.doing(worker, "")
                self._give()
            case Doing(what):
                self._hearer.doing(worker, what)
            case Ended(turn):
                self._at[worker].ended.append(turn)
                self._hearer.ended(turn)
            case LeftOut(turns):
                self._hearer.left_out(self._at[worker].task, turns)
            case Warned(line):
                self._hearer.warn(line)
            case Broke(error):
                raise error
            case Gone(reason):
                self._gone(worker, reason)

    def _give(self) -> None:
        """Every idle worker its next dialogue."""
        while self._waiting and self._idle:
            worker = min(self._idle)
            self._idle.discard(worker)
            if self._pool.give(worker, self._waiting[0]):
                self._at[worker] = Try(self._waiting.popleft())

    def _gone(self, worker: int, reason: str) -> None:
        """A worker has ended: what it was at goes to another, or is given up."""
        self._idle.discard(worker)
        if worker in self._loading:
            self._loading.discard(worker)
            self._lost_loading += 1
            if self._lost_loading == TRIES:
                raise LoopserveError(f"worker {worker + 1} {reason} while it loaded the model; give fewer --workers")
        lost = self._at.pop(worker, None)
        self._hearer.doing(worker, "")
        if lost is not None:
            self._lose(worker, lost, reason)
        self._staff()
        self._give()

    def _lose(self, worker: int, lost: Try, reason: str) -> None:
        name = lost.task.script.id
        task = lost.task.after(lost.ended, self._options)
        self._lost[name] += 1
        if not task.missing:
            return
        if self._lost[name] < TRIES:
            self._hearer.warn(f"worker {worker + 1} {reason} at dialogue {name}, which is tried once more")
            self._hearer.again(name, turns_to_do([task.script], task.missing))
            self._waiting.appendleft(task)
        else:
            self._give_up(task, f"the worker {reason}, the second one at this dialogue")

    def _give_up(self, task: Task, why: str) -> None:
        """Every missing pass ends with a turn that failed."""
        assert self._first is not None, "a worker that has a dialogue has told what it loaded"
        self._hearer.again(task.script.id, Counter((name, done + 1) for (name, _, _), done in task.missing.items()))
        for (_, profile, repeat), done in task.missing.items():
            left = len(task.script.exchanges) - done - 1
            record = failed(task.script, done + 1, LoopserveError(why), left)
            record = completed(record, self._options, self._first, profile, repeat, versions())
            self._hearer.ended(Measured(record))
