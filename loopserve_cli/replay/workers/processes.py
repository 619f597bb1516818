"""Workers as processes of this machine, started anew (spawn) by multiprocessing, each with a pipe of its own.

Why no pool of a library: `concurrent.futures.ProcessPoolExecutor` breaks as a whole when one of its processes is
killed, `multiprocessing.Pool` waits for ever for what that one was at, and a queue that all of them share has a lock
which a killed one never gives back. A pipe each ends with its process, and tells what was said before.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import Empty, SimpleQueue

from loopserve_cli.engine.share import Share
from loopserve_cli.replay.workers.messages import Broke, Gone, Message
from loopserve_cli.replay.workers.task import Job, Task

# A terminal sends these to all its processes; what they mean for a worker, the process that started it decides.
OF_THE_TERMINAL = ("SIGINT", "SIGHUP")


@dataclass(frozen=True, slots=True)
class Started:
    """A process, our end of its pipe, and the thread that listens there."""

    process: SpawnProcess
    pipe: Connection
    listener: threading.Thread


class Processes:
    """A pool on this machine; see `Pool`."""

    def __init__(self, job: Job, shares: Sequence[Share]) -> None:
        """No process yet."""
        self.shares = shares
        self.about = about(shares)
        self._job = job
        self._started: dict[int, Started] = {}
        # A thread listens to each, so that an interrupt of the main one tears no message.
        self._inbox: SimpleQueue[tuple[int, Message]] = SimpleQueue()

    def start(self, worker: int, dtype: str) -> None:
        """See `Pool`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        job = self._job.on(self.shares[worker], dtype)
        process = context.Process(target=serve, args=(theirs, job), name=f"loopserve worker {worker + 1}", daemon=True)
        with terminal_unheard():
            process.start()
        theirs.close()
        listener = threading.Thread(target=self._listen, args=(worker, process, ours), daemon=True)
        self._started[worker] = Started(process, ours, listener)
        listener.start()

    def give(self, worker: int, task: Task) -> bool:
        """See `Pool`."""
        try:
            self._started[worker].pipe.send(task)
        except OSError:
            return False
        return True

    def next(self) -> tuple[int, Message]:
        """See `Pool`."""
        return self._inbox.get()

    def end(self) -> Iterator[tuple[int, Message]]:
        """See `Pool`. A worker holds nothing that would be lost with it."""
        for started in self._started.values():
            started.process.kill()
        for started in self._started.values():
            started.listener.join()
        with contextlib.suppress(Empty):
            while True:
                yield self._inbox.get_nowait()

    def _listen(self, worker: int, process: SpawnProcess, pipe: Connection) -> None:
        try:
            while True:
                self._inbox.put((worker, pipe.recv()))
        except (EOFError, OSError):
            pass  # it has ended, perhaps within a message
        except Exception as error:  # a message that cannot be read
            self._inbox.put((worker, Broke(error)))
        process.join()
        self._inbox.put((worker, Gone(reason(process.exitcode))))


def about(shares: Sequence[Share]) -> str:
    """How many share the machine, and what that means for their timings."""
    count, share = len(shares), shares[0]
    threads = f"{share.threads} thread{'s' if share.threads > 1 else ''}"
    if share.device == "cpu":
        each = f"on cpu with {threads}" + (" each" if count > 1 else "")
        shared = "the processor's caches and the memory's bandwidth"
    else:
        each = f"on {share.device}" + (f" to {shares[-1].device}" if count > 1 else "") + f", {threads} each"
        shared = "the processor, the host's memory and the bus"
    workers = f"{count} worker{'s' if count > 1 else ''} {each}"
    return workers if count == 1 else f"{workers}; they share {shared}, and their timings are of that"


def reason(exitcode: int | None) -> str:
    """Why a process ended, in words."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with status {exitcode}"


@contextlib.contextmanager
def terminal_unheard() -> Iterator[None]:
    """A process that is started inside never hears what a terminal sends; here it arrives afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would unblock Ctrl-C when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in OF_THE_TERMINAL])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Connection, job: Job) -> None:
    """What a worker's process does: load, then run what comes, until the one who started it is gone."""
    from loopserve_cli.replay.workers.worker import Worker

    threading.Thread(target=_end_with_the_one_who_started_this, daemon=True).start()
    with contextlib.suppress(EOFError, OSError), contextlib.closing(Worker(job, pipe.send)) as worker:
        worker.load()
        while True:
            worker.run(pipe.recv())


def _end_with_the_one_who_started_this() -> None:
    """Also within a long turn, and also when that one is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
