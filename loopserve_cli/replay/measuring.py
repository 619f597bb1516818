"""The measuring of a replay: what is missing is run, and what was measured is there, whatever ended it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopserve_cli.config import ReplayOptions
from loopserve_cli.environment import load_average
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.progress import Progress
from loopserve_cli.output import teller
from loopserve_cli.replay.book import Book
from loopserve_cli.replay.missing import missing_passes, turns_to_do
from loopserve_cli.replay.order import in_order
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.servers import Servers
from loopserve_cli.replay.watch import Watch
from loopserve_cli.replay.work import OpenEngine, Work
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from rich.console import Console


def measure(
    options: ReplayOptions,
    scripts: Sequence[Script],
    console: Console,
    open_engine: OpenEngine,
    book: Book,
    servers: Servers,
) -> tuple[list[TurnRecord], BaseException | None]:
    """Replay, here or in workers: the records as one process would write them, and what cut it short.

    What comes before a turn was measured, an interrupt aside, is raised.
    """
    say = teller(console)

    def keep(turn: Measured) -> None:
        measured.append(turn)
        book.keep(turn)

    measured: list[Measured] = []
    ended_by: BaseException | None = None
    for script in scripts:
        if script.history != options.history:
            say(f"{script.id}: the file does not have all answers, so the model's own are kept (history: live)")
    turns = sum(len(script.exchanges) for script in scripts) * len(options.names) * options.repeat
    kept = [turn.record for turn in book.kept]
    missing = missing_passes(options, scripts, kept)
    to_do = turns_to_do(scripts, missing)
    if options.resume is not None:
        say(f"resuming {book.path}: {to_do.total()} of {turns} turns are missing")
    progress = Progress(options.names, turns, to_do, kept)
    watch = Watch(console, progress, options.repeat, time.monotonic)
    try:
        run(Work(options, scripts, missing, open_engine, book, watch, keep, say), servers)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and not measured:
            raise
        ended_by = error
    book.environment["loadavg_end"] = load_average()
    every = in_order(book.all_with(measured), options, scripts)
    return [turn.record for turn in every], ended_by


def run(work: Work, servers: Servers) -> None:
    """By whom the options say."""
    if work.options.workers is None and work.options.ray is None:
        from loopserve_cli.replay.alone import run_alone

        run_alone(work, servers)
    else:
        from loopserve_cli.replay.workers.spread import run_spread

        run_spread(work)
