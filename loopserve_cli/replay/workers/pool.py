"""Where workers are: processes of this machine, or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from loopserve_cli.engine.share import Share
from loopserve_cli.replay.workers.messages import Message
from loopserve_cli.replay.workers.task import Task


class Pool(Protocol):
    """Starts workers and carries what is said to and fro. A worker is known by its number, which is its share's."""

    shares: Sequence[Share]
    # Where, and what that means for timings: one line.
    about: str

    def start(self, worker: int, dtype: str) -> None:
        """Begin one: it loads the model, in that number format, and tells `Loaded`, then `Idle`, in the end `Gone`."""

    def give(self, worker: int, task: Task) -> bool:
        """Have an idle one run a dialogue, until it is `Idle` again; False where it has ended, which it tells."""

    def next(self) -> tuple[int, Message]:
        """The next message of any of them; waits for it. Of one worker they come in order."""

    def end(self) -> Iterator[tuple[int, Message]]:
        """End all of them at once; what they said until then and nobody has read."""
