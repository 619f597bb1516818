"""A worker: it loads the model once, and runs dialogues that it is given; what happens it tells."""

from __future__ import annotations

import contextlib
import logging
import pickle
import platform
import time
import traceback
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from loopserve_cli.engine.events import Event, Token
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.rounds import rotated
from loopserve_cli.pace import Pace
from loopserve_cli.replay.phase import Phase
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.variant import Named
from loopserve_cli.replay.workers.messages import Broke, Doing, Ended, Idle, LeftOut, Loaded, Loading, Message, Warned
from loopserve_cli.replay.workers.task import Job, Task
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine

Tell = Callable[[Message], None]
# How often, at most, a worker tells what it is at: many of them tell one process.
TELL_SECONDS = 0.5


class Worker:
    """Runs dialogues one after the other on one engine. What it cannot go on from it tells as `Broke`."""

    def __init__(self, job: Job, tell: Tell) -> None:
        """Nothing is loaded yet."""
        self._job = job
        self._tell = tell
        self._engine: Engine | None = None
        self._until_closed = contextlib.ExitStack()
        if job.quiet:
            logging.disable(logging.CRITICAL)
            warnings.simplefilter("ignore")

    def close(self) -> None:
        """Leave the process as it was, but for the model."""
        self._until_closed.close()

    def load(self) -> None:
        """Load the model and take one short turn under every profile."""
        self._or_broke(self._load)

    def run(self, task: Task) -> None:
        """Every missing turn of a dialogue."""
        self._or_broke(lambda: self._run(task))

    def _load(self) -> None:
        from loopserve_cli.collector import settled
        from loopserve_cli.environment import describe
        from loopserve_cli.replay.local import Local

        job = self._job
        job.share.take()
        self._engine = engine = job.open_engine(job.options, lambda line: self._tell(Loading(line)))
        here = describe(engine.device), platform.node()
        self._tell(Loaded(engine.identity, engine.device, engine.model_name, engine.dtype, *here))
        for variant in Local(engine, job.options, self._watch(engine), {}, job.date).variants:
            variant.warm_up()
        self._until_closed.enter_context(settled())  # once: with torch loaded it takes as long as a short dialogue

    def _run(self, task: Task) -> None:
        from loopserve_cli.engine.layerwise import told_within
        from loopserve_cli.replay.local import Local
        from loopserve_cli.replay.runner import Runner

        job, engine = self._job, self._engine
        assert engine is not None, "a model is loaded before dialogues are run"
        watch = self._watch(engine)
        local = Local(engine, job.options, watch, task.missing, job.date, task.kept)
        # To the runner this is the first dialogue; who goes first is decided by its place among all.
        variants = rotated(local.variants, task.index)

        def keep(turn: Measured) -> None:
            self._tell(Ended(turn))

        with told_within(engine, watch.event):
            Runner(variants, [task.script], job.options.repeat, watch, task.missing, keep, local.around).run()

    def _watch(self, engine: Engine) -> Teller:
        return Teller(self._tell, self._job.options.repeat, while_decoding=engine.device == "cpu")

    def _or_broke(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._tell(Broke(portable(error)))
        else:
            self._tell(Idle())


def portable(error: Exception) -> Exception:
    """The error with where it was raised in its notes; one that would not survive the way, by its name and line."""
    where = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        lines = str(error).splitlines() or [""]
        error = RuntimeError(f"{type(error).__name__}: {lines[0]}")
    error.add_note(f"In a worker:\n{where}")
    return error


class Teller:
    """A runner's watcher who tells another process, so rarely that a turn hardly waits."""

    def __init__(self, tell: Tell, repeats: int, while_decoding: bool) -> None:
        """`while_decoding`: a CPU waits while a token is looked at; a GPU goes on, and its clock with it."""
        self._tell = tell
        self._phase = Phase(repeats)
        self._while_decoding = while_decoding
        self._pace = Pace(time.monotonic, seconds=TELL_SECONDS)

    def begin(self, script: Script, variant: Named, repeat: int) -> None:
        """Tell where it is."""
        self._phase.begin(script, variant, repeat)
        self._tell_now()

    def event(self, event: Event) -> None:
        """Tell now and then."""
        self._phase.event(event)
        if not isinstance(event, Token) or self._while_decoding:
            self._tell_if_due()

    def asked(self) -> None:
        """No worker asks servers."""
        self._phase.asked()

    def ended(self, record: TurnRecord) -> None:
        """A turn is over; that it was kept has told so."""
        del record
        self._phase.ended()

    def advance(self, turns: int) -> None:
        """Tell that these are not run."""
        self._tell(LeftOut(turns))

    def forcing(self, tokens: int) -> None:
        """Tell now and then."""
        self._phase.forcing(tokens)
        self._tell_if_due()

    def warn(self, line: str) -> None:
        """Tell it on."""
        self._tell(Warned(line))

    def _tell_if_due(self) -> None:
        if self._pace.due():
            self._tell_now()

    def _tell_now(self) -> None:
        start = time.monotonic()
        self._tell(Doing(str(self._phase)))
        self._pace.drawn(start)
