"""What a turn looks like while it runs: one method per event, whoever draws them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Console
from rich.text import Text

from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.printable import printable

if TYPE_CHECKING:
    from loopserve_cli.chat.dashboard.panel import Panel


class View(Protocol):
    """Shows one turn after another; `begin` and `end` stand around each, whatever happens between.

    With `dashboard` it shows the `panel`, where it is one that draws.
    """

    shows_thinking: bool
    dashboard: bool
    panel: Panel | None

    @property
    def name(self) -> str:
        """Of what it shows now: dashboard, simple or plain."""

    def begin(self) -> None:
        """A message was sent."""

    def prefill(self, event: PrefillProgress) -> None:
        """Some of the new tokens are in the cache."""

    def token(self, event: Token) -> None:
        """The answer grew."""

    def done(self, event: TurnDone) -> None:
        """The answer is complete, or was stopped."""

    def stopping(self) -> None:
        """Ctrl-C was pressed, and the turn ends as soon as it can. Called by a signal handler: draw nothing."""

    def end(self) -> None:
        """The turn is over, also when it failed."""


def show(view: View, event: Event) -> None:
    """Hand an event to the method that is its own."""
    match event:
        case PrefillProgress():
            view.prefill(event)
        case Token():
            view.token(event)
        case TurnDone():
            view.done(event)


class PlainView:
    """The answer as plain text on a stream, token by token; nothing is drawn twice. Thoughts go elsewhere."""

    name = "plain"
    dashboard = False
    panel: Panel | None = None

    def __init__(self, stream: TextIO, aside: Console | None = None, shows_thinking: bool = True) -> None:
        """Write to `stream`, and thoughts to `aside`; on a terminal control characters are made visible."""
        self._stream = stream
        self._aside = aside
        self._tty = stream.isatty()
        self._open_line = self._open_thought = False
        self.shows_thinking = shows_thinking

    def begin(self) -> None:
        """Nothing yet."""
        self._open_line = self._open_thought = False

    def prefill(self, event: PrefillProgress) -> None:
        """Nothing: only the answer belongs on this stream."""

    def token(self, event: Token) -> None:
        """Write what the token adds, at once."""
        if not event.text:
            return
        if event.reasoning:
            self._think(printable(event.text))
        else:
            self._end_thought()
            self._write(printable(event.text) if self._tty else event.text)

    def done(self, event: TurnDone) -> None:
        """End the answer's last line; an empty answer is an empty line."""
        self._end_thought()
        if self._open_line or not event.record.output_text:
            self._write("\n")

    def stopping(self) -> None:
        """Nothing: only the answer belongs on this stream."""

    def end(self) -> None:
        """End a line that a failure cut off."""
        self._end_thought()
        if self._open_line:
            self._write("\n")

    def _think(self, text: str) -> None:
        if self._aside is None or not self.shows_thinking:
            return
        if self._open_line:  # an answer that goes on after more thoughts
            self._write("\n")
        self._open_thought = True
        self._aside.print(Text(text, style="dim"), end="", soft_wrap=True)

    def _end_thought(self) -> None:
        """End the thoughts' last line; where the answer follows on the same terminal, an empty line parts them."""
        if self._open_thought and self._aside is not None:
            self._aside.print("\n" if self._tty else "")
        self._open_thought = False

    def _write(self, text: str) -> None:
        self._open_line = not text.endswith("\n")
        self._stream.write(text)
        self._stream.flush()


def is_plain(console: Console) -> bool:
    """Whether nothing may be drawn: no terminal, or a dumb one. NO_COLOR only takes the colours, which Rich sees to."""
    return not console.is_terminal or console.is_dumb_terminal


def choose_view(
    ui: str, console: Console, environ: Mapping[str, str] = os.environ, aside: Console | None = None
) -> View:
    """The view for `--ui`, a plain one with thoughts on `aside`; the dashboard needs a panel to be seen."""
    if ui == "none" or is_plain(console):
        return PlainView(console.file, aside)  # type: ignore[arg-type]
    from loopserve_cli.chat.live import LiveView

    view = LiveView(console, environ=environ)
    view.dashboard = ui == "dashboard"
    return view
