"""What a person sees on stderr while a replay runs: a live table on a terminal, a line every few seconds elsewhere.

It is told of every event of a turn, whose clock stands still meanwhile, and draws now and then; see `Stopwatch`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loopserve_cli.engine.events import Event, Token
from loopserve_cli.measure.figures import fine, number, times
from loopserve_cli.measure.progress import Progress, SoFar
from loopserve_cli.output import new_table
from loopserve_cli.pace import Pace, brief
from loopserve_cli.replay.phase import Phase
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.variant import Named
from loopserve_cli.stats import TurnRecord

TABLE_SECONDS, TABLE_SHARE = 0.25, 0.05
LINE_SECONDS = 5.0
BAR_WIDTH = 30
# Of many workers so many are shown: in the table each has a line, elsewhere they share one.
WORKERS_IN_TABLE, WORKERS_IN_LINE = 8, 3


class Watch:
    """Follows a run and draws it inside `shown`; what it drew last goes away at the end."""

    def __init__(self, console: Console, progress: Progress, repeats: int, clock: Callable[[], float]) -> None:
        """Nothing runs yet. Without a terminal, or on a dumb one, there are only lines."""
        self.console = console
        self.progress = progress
        # A GPU computes the next token while this one is read, and the clock goes on: nothing may be drawn then.
        self.draws_while_decoding = True
        plain = not console.is_terminal or console.is_dumb_terminal
        self._pace = Pace(clock, seconds=LINE_SECONDS) if plain else Pace(clock, TABLE_SHARE, TABLE_SECONDS)
        self._clock = clock
        self._live = None if plain else Live(console=console, auto_refresh=False, transient=True)
        self._phase = Phase(repeats)
        self._workers: dict[int, str] = {}
        self._script: Script | None = None
        self._closed = False
        self._rows: list[SoFar] = []

    def begin(self, script: Script, variant: Named, repeat: int) -> None:
        """Name what runs now."""
        if self._script is None:
            self.progress.begin()
        self._script = script
        self._phase.begin(script, variant, repeat)
        self._draw_if_due()

    def event(self, event: Event) -> None:
        """Something happened within a turn."""
        self._phase.event(event)
        if not isinstance(event, Token) or self.draws_while_decoding:
            self._draw_if_due()

    def doing(self, worker: int, what: str) -> None:
        """What one of several workers is at; nothing where it has ended."""
        self._workers[worker] = what
        if what:
            self._draw_if_due()

    def asked(self) -> None:
        """A server is about to be asked, and answers before anything is drawn again."""
        self._phase.asked()
        self._draw_if_due(at_last=True)

    def ended(self, record: TurnRecord) -> None:
        """A turn is over."""
        self._phase.ended()
        self.progress.ended(record)
        self._rows = []
        self._draw_if_due()

    def advance(self, turns: int) -> None:
        """The last so many turns of the dialogue are not run."""
        if self._script is not None:
            last = len(self._script.exchanges)
            self.progress.left_out((self._script.id, last - place) for place in range(turns))

    def forcing(self, tokens: int) -> None:
        """A given answer is decoded, which is in no timing."""
        self._phase.forcing(tokens)
        self._draw_if_due()

    def warn(self, line: str) -> None:
        """Say something that the user should not miss."""
        with contextlib.suppress(OSError):
            self.console.print(line, style="yellow", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, it may draw; a terminal that closes meanwhile ends the drawing, and not the run."""
        if self._live is not None:
            self._live.start()
        try:
            yield
        finally:
            if self._live is not None:
                with contextlib.suppress(OSError):
                    self._live.stop()

    def _draw_if_due(self, at_last: bool = False) -> None:
        """Draw where it is time, and a table `at_last`, before it must stand still."""
        if self._closed or not (self._pace.due() or (at_last and self._live is not None)):
            return
        start = self._clock()
        try:
            if self._live is None:
                self.console.print(self.line(), markup=False, soft_wrap=True)
            else:
                self._live.update(self.table(), refresh=True)
        except OSError:
            self._closed = True
        self._pace.drawn(start)

    def _lines(self, most: int) -> list[str]:
        """What runs: one line, or one for each worker that is at something, at most so many."""
        if not self._workers:
            return [str(self._phase)]
        busy = [f"{worker + 1}: {what}" for worker, what in sorted(self._workers.items()) if what]
        more = len(busy) - most
        return busy[:most] + ([f"and {more} more"] if more > 0 else [])

    def _times(self) -> str:
        left = self.progress.seconds_left
        gone = f"{brief(self.progress.seconds_gone)} gone"
        return gone if left is None else f"{gone}, {brief(left)} left"

    def line(self) -> str:
        """All of it in a line, but for the profiles."""
        what = "; ".join(self._lines(WORKERS_IN_LINE))
        return f"{self.progress.done:,} of {self.progress.total:,} turns, {self._times()}: {what}"

    def table(self) -> Group:
        """What runs, how far it is, and each profile beside the first."""
        done, total = self.progress.done, self.progress.total
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total, done, BAR_WIDTH), f"{done:,}/{total:,} turns", self._times())
        self._rows = self._rows or self.progress.so_far()
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines(WORKERS_IN_TABLE)]
        return Group(*lines, row, profiles_table(self._rows))


def profiles_table(rows: list[SoFar]) -> Table:
    """Medians of every profile, and how many times as fast as the first it is."""
    table = new_table()
    table.add_column("profile", no_wrap=True, overflow="ellipsis")
    with_kl = any(row.kl is not None for row in rows)
    for name in ("turns", "TTFT ms", "", "next token ms", "", *(["KL"] if with_kl else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{row.turns:,}", number(row.ttft_ms), _times_as_fast(row.ttft_ratio)]
        cells += [number(row.tpot_ms), _times_as_fast(row.tpot_ratio), *([fine(row.kl)] if with_kl else [])]
        table.add_row(Text(row.profile), *cells)
    return table


def _times_as_fast(ratio: float | None) -> str:
    return "" if ratio is None else times(ratio)
