"""A replay in workers: this process gives dialogues out, and keeps and shows what comes back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from loopserve_cli.engine.share import Share, shares
from loopserve_cli.errors import LoopserveError
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.progress import DialogueTurn
from loopserve_cli.replay.document import command_of
from loopserve_cli.replay.work import Work
from loopserve_cli.replay.workers.dispatch import Dispatch
from loopserve_cli.replay.workers.messages import Loaded
from loopserve_cli.replay.workers.pool import Pool
from loopserve_cli.replay.workers.task import Job, Task, tasks_of


def run_spread(work: Work) -> None:
    """Every dialogue of which something is missing, in the workers that were asked for.

    Raises UsageError where they cannot be had.
    """
    tasks = tasks_of(work.scripts, work.missing, work.book.kept)
    pool = pool_of(work, len(tasks))
    work.say(pool.about)
    with work.watch.shown():
        Dispatch(pool, work.options, tasks, Keeper(work, pool)).run()


def pool_of(work: Work, dialogues: int) -> Pool:
    """Where the workers are to be, of which no more are started than there are dialogues."""
    options = work.options
    quiet = logging.root.manager.disable >= logging.CRITICAL
    job = Job(options, work.book.date, work.open_engine, Share("cpu", 1), quiet)
    if options.ray is not None:
        from loopserve_cli.replay.workers.ray_pool import RayPool

        return RayPool(job, options.ray, options.workers, dialogues)
    from loopserve_cli.replay.workers.processes import Processes

    assert options.workers is not None, "workers are asked for by their number or by an address"
    return Processes(job, shares(options.model.device, options.workers)[: max(1, dialogues)])


class Keeper:
    """Keeps every turn in the run's book, and shows the rest; see `dispatch.Hearer`."""

    def __init__(self, work: Work, pool: Pool) -> None:
        """Nothing is loaded yet."""
        self._work = work
        self._pool = pool
        self._first: Loaded | None = None
        self._each: list[dict[str, Any]] = []
        self._told: set[str] = set()
        self._began = False

    def loading(self, line: str) -> None:
        """Say it."""
        self._work.say(line)

    def loaded(self, worker: int, loaded: Loaded) -> None:
        """The run begins with the first; each stands in the environment, one that replaces another as well."""
        share = self._pool.shares[worker]
        self._each.append(
            {"worker": worker + 1, "device": loaded.device, "takes": share.device, "threads": share.threads}
        )
        if self._first is not None:
            other = self._first.identity.difference(loaded.identity)
            if other is not None:
                raise LoopserveError(f"worker {worker + 1} has another model: the first one's was measured {other}")
            return
        self._first = loaded
        workers = {"count": len(self._pool.shares), "about": self._pool.about, "each": self._each}
        command = command_of(self._work.options, self._work.scripts)
        self._work.book.begin(loaded, command, loaded.environment | {"workers": workers})
        self._work.warms_up()

    def doing(self, worker: int, what: str) -> None:
        """Show it; the run's time begins when the first is ready."""
        if not what and not self._began:
            self._began = True
            self._work.watch.progress.begin()
        self._work.watch.doing(worker, what)

    def ended(self, turn: Measured) -> None:
        """Keep the turn, then count it."""
        self._work.keep(turn)
        self._work.watch.ended(turn.record)

    def left_out(self, task: Task, turns: int) -> None:
        """Count them as done."""
        last = len(task.script.exchanges)
        self._work.watch.progress.left_out((task.script.id, last - place) for place in range(turns))

    def again(self, dialogue: str, to_do: Mapping[DialogueTurn, int]) -> None:
        """Count anew what is to be done."""
        self._work.watch.progress.again(dialogue, to_do)

    def warn(self, line: str) -> None:
        """Say once what several workers may tell."""
        if line not in self._told:
            self._told.add(line)
            self._work.watch.warn(line)
