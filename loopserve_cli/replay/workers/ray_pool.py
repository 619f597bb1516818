"""Workers as actors of a Ray cluster: a dialogue is one task of such an actor, and what it tells is streamed back.

An actor holds the model from one dialogue to the next; a plain task would load it anew. That a dialogue is tried
twice is `Dispatch`'s doing, as for processes: a task that Ray itself ran again would begin at the first turn.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from loopserve_cli.engine.share import Share
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.replay.workers.messages import Broke, Gone, Message
from loopserve_cli.replay.workers.processes import terminal_unheard
from loopserve_cli.replay.workers.task import Job, Task
from loopserve_cli.replay.workers.worker import Worker

# Ray asks for these before it is imported: no report of its use leaves the machine, and no advice is printed.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
SECONDS_TO_END = 10.0
SECONDS_TO_ANSWER = 5.0


class RayPool:
    """A pool on a cluster; see `Pool`."""

    def __init__(self, job: Job, address: str, workers: int | None, dialogues: int) -> None:
        """Join the cluster at `address`, or start one of this machine ("local").

        At most `workers`, and no more than there are dialogues. Raises LoopserveError where Ray is not installed or
        no cluster answers, UsageError for more workers than it has GPUs, or processors where it has none.
        """
        self._ray = joined(address)
        try:
            room = room_of(self._ray, job.options.model.device)
            self.shares: Sequence[Share] = room.shares(workers, dialogues)
        except UsageError:
            self._ray.shutdown()
            raise
        self.about = about(self.shares, address)
        self._job = job
        self._gpus = 1 if room.gpus else 0
        self._actors: dict[int, Any] = {}
        self._listeners: list[threading.Thread] = []
        self._inbox: SimpleQueue[tuple[int, Message]] = SimpleQueue()

    def start(self, worker: int, dtype: str) -> None:
        """See `Pool`."""
        share = self.shares[worker]
        needs = {"num_gpus": self._gpus, "num_cpus": share.threads, "max_restarts": 0, "max_task_retries": 0}
        actor = self._ray.remote(**needs)(RayWorker).remote(self._job.on(share, dtype))
        self._actors[worker] = actor
        self._listen(worker, actor.load)

    def give(self, worker: int, task: Task) -> bool:
        """See `Pool`. An actor that has ended tells so in the stream of the task."""
        self._listen(worker, self._actors[worker].run, task)
        return True

    def next(self) -> tuple[int, Message]:
        """See `Pool`."""
        return self._inbox.get()

    def end(self) -> Iterator[tuple[int, Message]]:
        """See `Pool`."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        for listener in self._listeners:
            listener.join(SECONDS_TO_END)
        self._ray.shutdown()
        with contextlib.suppress(Empty):
            while True:
                yield self._inbox.get_nowait()

    def _listen(self, worker: int, method: Any, *given: Any) -> None:
        stream = method.options(num_returns="streaming").remote(*given)

        def hear() -> None:
            try:
                for message in stream:
                    self._inbox.put((worker, self._ray.get(message)))
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.RaySystemError) as error:
                self._inbox.put((worker, ending(error)))
            except Exception as error:  # the program is wrong, or Ray
                self._inbox.put((worker, Broke(error)))

        # A thread listens to each, so that an interrupt of the main one tears no message.
        listener = threading.Thread(target=hear, daemon=True)
        self._listeners = [one for one in self._listeners if one.is_alive()] + [listener]
        listener.start()


class RayWorker:
    """A worker within an actor. The engine lives in one thread; the actor's own passes on what that tells."""

    def __init__(self, job: Job) -> None:
        """Nothing is loaded yet."""
        self._told: SimpleQueue[Message | None] = SimpleQueue()
        self._thread = ThreadPoolExecutor(1)
        self._worker = Worker(job, self._told.put)

    def load(self) -> Iterator[Message]:
        """As `Worker.load`, what it tells as it comes."""
        yield from self._during(self._worker.load)

    def run(self, task: Task) -> Iterator[Message]:
        """As `Worker.run`, what it tells as it comes."""
        yield from self._during(lambda: self._worker.run(task))

    def _during(self, work: Callable[[], None]) -> Iterator[Message]:
        done = self._thread.submit(work)
        done.add_done_callback(lambda _: self._told.put(None))
        while (message := self._told.get()) is not None:
            yield message
        done.result()


@dataclass(frozen=True, slots=True)
class Room:
    """What a cluster has: GPUs, if they are to be used, processors, and those of its smallest node."""

    gpus: int
    processors: int
    least: int

    def shares(self, workers: int | None, dialogues: int) -> list[Share]:
        """One share for each worker: a GPU, or without them the processors split."""
        most = self.gpus or self.processors
        if workers is not None and workers > most:
            what = "GPUs" if self.gpus else "processors"
            raise UsageError(f"--workers {workers}, but the Ray cluster has {most} {what}; give --workers {most}")
        count = max(1, min(workers or most, dialogues))
        if self.gpus:
            return [Share("cuda:0", 1)] * count  # Ray shows each the one GPU that is its own
        return [Share("cpu", max(1, min(self.processors // count, self.least)))] * count


def room_of(ray: Any, device: str) -> Room:
    """What the cluster has for that --device; raises UsageError where that is nothing."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    processors = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda, but the Ray cluster has no GPU; give --device cpu")
    if not gpus and not processors:
        raise UsageError("the Ray cluster has neither GPUs nor processors to give; add a node to it")
    return Room(gpus, sum(processors), min(processors, default=1))


def joined(address: str) -> Any:
    """The module of Ray, connected; raises LoopserveError. Ctrl-C, SIGTERM and SIGHUP stay with this process."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise LoopserveError("--ray needs Ray, which is not installed; pip install 'loopserve[ray]'") from None
    if address not in ("auto", "local"):
        check_answers(address)
    terminating = signal.getsignal(signal.SIGTERM)
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        with terminal_unheard():
            ray.init(address, log_to_driver=False, logging_level="CRITICAL", **alone)
    except (ConnectionError, RuntimeError, ValueError) as error:
        mend = "start one with `ray start --head`; RAY_AUTH_MODE must be as it is there"
        raise LoopserveError(f"--ray {address}: {reason(error)}; {mend}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminating)
    return ray


def check_answers(address: str) -> None:
    """Raise LoopserveError where nobody listens at HOST:PORT; Ray itself would try for minutes, and print each try."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise LoopserveError(f"--ray {address}: no cluster answers ({error}); see `ray status` there") from None


def about(shares: Sequence[Share], address: str) -> str:
    """How many there are, where, and what that means for their timings."""
    share, workers = shares[0], f"{len(shares)} worker{'s' if len(shares) > 1 else ''}"
    processors = f"{share.threads} processor{'s' if share.threads > 1 else ''}"
    each = processors if share.device == "cpu" else "one GPU"
    shared = "those of one node share it, and their timings are of that"
    return f"{workers} of Ray ({address}) with {each} each; {shared}"


def ending(error: Exception) -> Message:
    """What an actor's end means: it cannot be begun again where it could not begin at all."""
    if "creation task" in str(error):
        last = str(error).strip().splitlines()[-1].strip()
        line = f"a worker could not begin: {last}; every node needs this loopserve and the same files"
        return Broke(LoopserveError(line))
    return Gone(f"has ended ({reason(error)})")


def reason(error: Exception) -> str:
    """The first sentence of what Ray says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].strip().rstrip(".")
