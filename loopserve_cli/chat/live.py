"""The simple view: Markdown that streams, with only its last lines live."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.markdown import MarkdownStream
from loopserve_cli.chat.region import Region
from loopserve_cli.chat.terminal import reflows
from loopserve_cli.chat.thoughts import ThoughtStream
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.pace import REDRAW_SECONDS, REDRAW_SHARE, Pace
from loopserve_cli.printable import printable

if TYPE_CHECKING:
    from loopserve_cli.chat.dashboard.panel import Panel

LIVE_LINES = 10
LONG_PREFILL = 256
# Of a turn, so that with its last drawing, which shows all that is left, it stays under 2%.
DASHBOARD_SHARE = 0.01
STOPPING = " stopping…".encode()
ERASED = b"\x1b[K"


class LiveView:
    """One Rich Live region: finished lines go to the scrollback, the rest is drawn again and again.

    Under the lines that may still change stands what goes on: one line, or the dashboard.
    """

    def __init__(
        self,
        console: Console,
        clock: Callable[[], float] = time.perf_counter,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Draw on `console`, which must be a terminal."""
        self._console = console
        self._clock = clock
        self._reflows = reflows(environ)
        self._live: Live | None = None
        self.shows_thinking = True
        self.dashboard = False
        self.panel: Panel | None = None

    @property
    def name(self) -> str:
        """Of what is shown."""
        return "simple" if self._board is None else "dashboard"

    @property
    def _board(self) -> Panel | None:
        """The dashboard, where it is shown."""
        return self.panel if self.dashboard else None

    def begin(self) -> None:
        """Open the region."""
        self._answer = MarkdownStream()
        self._thoughts = ThoughtStream(self.shows_thinking, self._clock)
        self._thinking = False
        self._settled: list[RenderableType] = []
        self._tokens = 0
        self._prefill: PrefillProgress | None = None
        shown = self._board is not None
        self._pace = Pace(self._clock, DASHBOARD_SHARE if shown else REDRAW_SHARE, REDRAW_SECONDS, forgives=shown)
        if self.panel is not None:
            self.panel.begin()
        self._region = Region(self._console, self._reflows)
        self._live = Live(
            self._region, console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )
        self._live.start()
        self._draw()

    def prefill(self, event: PrefillProgress) -> None:
        """Move the bar, if the prefill is long enough for one."""
        self._prefill = event
        if self.panel is not None:
            self.panel.prefill(event)
        if event.done:
            self._draw_if_due()
        else:  # how much there is to read, said before any of it is: the next event may be long in coming
            self._draw()

    def token(self, event: Token) -> None:
        """Take in the token; draw if it is time."""
        start = self._clock()
        self._tokens += 1
        if self.panel is not None:
            self.panel.token(event)
        if event.reasoning != self._thinking and (event.reasoning or event.text):
            self._turn_to(event.reasoning)
        if event.reasoning == self._thinking:
            self._stream.feed(printable(event.text))
        self._pace.also(start)
        self._draw_if_due()

    def done(self, event: TurnDone) -> None:
        """Move everything to the scrollback and close the region."""
        pieces = [*self._settled, *self._stream.finish()]
        if event.record.finish_reason == "cancelled" and self._tokens:
            pieces.append(Text("[stopped]", style="dim"))
        elif self._thinking:
            pieces.append(Text("(no answer)", style="dim"))
        self._close(pieces)

    def stopping(self) -> None:
        """Say so in the last live line, where the cursor is; the next drawing erases it.

        Past Rich and Python's buffers: a signal handler may interrupt both. The dashboard's last line may be as wide
        as the terminal, so there it gives way.
        """
        if self.panel is not None:
            self.panel.stopping = True
        if self._live is not None and self._console.file.isatty():
            os.write(self._console.file.fileno(), STOPPING if self._board is None else b"\r" + STOPPING + ERASED)

    def end(self) -> None:
        """Close the region of a turn that failed; its text so far stays readable."""
        if self._live is not None:
            self._close([*self._settled, *self._stream.finish()])

    @property
    def _stream(self) -> MarkdownStream | ThoughtStream:
        """Where the text goes now."""
        return self._thoughts if self._thinking else self._answer

    def _turn_to(self, thinking: bool) -> None:
        """Thoughts begin, or the answer behind them."""
        before = self._stream.finish()
        self._settled += [*before, Text()] if before else []
        self._thinking = thinking

    def _close(self, pieces: list[RenderableType]) -> None:
        live, self._live = self._live, None
        if self.panel is not None:
            self.panel.end()
        if live is not None:
            self._region.mend_narrowed()
            self._region.lines = []
            try:
                if pieces:
                    self._console.print(Group(*pieces))
            finally:
                live.stop()

    def _draw_if_due(self) -> None:
        if self._pace.due():
            self._draw()

    def _draw(self) -> None:
        assert self._live is not None
        if not self._console.is_terminal:  # it was closed: Rich then draws nothing, and fails not at all
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        start = self._clock()
        self._region.mend_narrowed()
        settled = [*self._settled, *self._stream.settled()]
        self._settled = []
        self._region.lines = self._lines()
        if settled:
            self._console.print(Group(*settled))
        else:
            self._live.refresh()
        self._region.drawn()
        self._pace.drawn(start)

    def _lines(self) -> list[list[Segment]]:
        """The live lines: the end of what may still change, and what is going on."""
        options = self._console.options
        if self._board is not None:
            status = self._board.segments(self._console)
        else:
            status = self._console.render_lines(self._status(), options, pad=False)[:1]
        most = max(1, min(LIVE_LINES, options.size.height - 1 - len(status)))
        tail = self._console.render_lines(self._stream.tail(), options, pad=False)[-most:]
        return tail + status

    def _status(self) -> RenderableType:
        progress = self._prefill
        if self._tokens:
            what = "thinking · " if self._thinking else ""
            return Text(f"{what}{self._tokens} tokens · Ctrl-C stops", style="dim", no_wrap=True, overflow="crop")
        if progress is None or progress.total < LONG_PREFILL:
            return Text("…", style="dim")
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=progress.total, completed=progress.done, width=min(30, self._console.width // 3))
        row.add_row(Text("prefill"), bar, Text(f"{progress.done:,}/{progress.total:,} tokens", no_wrap=True))
        return row
