"""The bar of a wait outside a turn: how far it is, and how long it still takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from loopserve_cli.chat.figures import size
from loopserve_cli.pace import brief

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine

WIDEST = 30
# Beside the bar at its widest: what is waited for, " 1,048,576/1,048,576 tokens", and " 9:59 min left".
BESIDE = 48


class TimeLeft(ProgressColumn):
    """At the pace so far, counted down between two steps; nothing before the first of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        super().__init__()
        self._clock = clock
        self._began: tuple[float, float] | None = None
        self._moved: tuple[float, float] | None = None

    def step(self, done: float) -> None:
        """So much is done now."""
        now = self._clock()
        if self._began is None:
            self._began = (now, done)
        elif done > (self._moved or self._began)[1]:
            self._moved = (now, done)

    def seconds(self, total: float | None) -> float | None:
        """How long the rest takes; None while there is nothing to tell by."""
        if self._began is None or self._moved is None or total is None:
            return None
        (then, none), (at, done) = self._began, self._moved
        return max(0.0, (at - then) / (done - none) * (total - done) - (self._clock() - at))

    def render(self, task: Task) -> Text:
        """For example "12 s left"."""
        left = self.seconds(task.total)
        return Text("" if left is None else f"{brief(left)} left", style="progress.remaining")


class WaitBar:
    """Shown on a console while it is entered, and gone afterwards."""

    def __init__(
        self,
        console: Console,
        what: str,
        amount: Callable[[int, int], str],
        disable: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Say `what` is waited for and how much of it is done; nothing is drawn where that is disabled."""
        self._left = TimeLeft(clock)
        self._amount = amount
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=max(4, min(WIDEST, console.width - BESIDE))),
            TextColumn("{task.fields[amount]}", markup=False),
            self._left,
            console=console,
            transient=True,
            disable=disable,
        )
        self._task = self.progress.add_task(what, total=None, amount="")

    def __enter__(self) -> WaitBar:
        """Begin to draw."""
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self.progress.stop()

    def show(self, done: int, total: int) -> None:
        """So much is done."""
        self._left.step(done)
        self.progress.update(self._task, completed=done, total=total, amount=self._amount(done, total))


def tokens(done: int, total: int) -> str:
    """How many tokens of how many."""
    return f"{done:,}/{total:,} tokens"


def sizes(done: int, total: int) -> str:
    """How many bytes of how many."""
    return f"{size(done)}/{size(total)}"


@contextlib.contextmanager
def told_between_tensors(engine: Engine, tell: Callable[[int, int], None]) -> Iterator[None]:
    """Inside, `tell` hears how many bytes of how many of a saved cache are written, or read."""
    engine.between_tensors = tell
    try:
        yield
    finally:
        engine.between_tensors = None
