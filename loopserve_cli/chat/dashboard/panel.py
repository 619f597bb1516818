"""The dashboard as the views hold it: it hears of the turn, and gives lines for a terminal of any size."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from loopserve_cli.chat.dashboard.figures import Dialogue, idle, running
from loopserve_cli.chat.dashboard.layout import lines
from loopserve_cli.chat.dashboard.line import BAR, DIM, STRONG, VALUE, WARN, Line, marks_for
from loopserve_cli.chat.dashboard.watch import TurnWatch
from loopserve_cli.engine.events import PrefillProgress, Token

RICH = {VALUE: None} | {style: Style.parse(style) for style in (DIM, STRONG, BAR, WARN)}
PROMPT = {VALUE: "fg:default", DIM: "", STRONG: "fg:default bold", BAR: "fg:ansicyan", WARN: "fg:ansiyellow"}


class Panel:
    """One dialogue's dashboard. `source` says how the dialogue is at the moment of a drawing."""

    def __init__(self, source: Callable[[], Dialogue], encoding: str = "utf-8") -> None:
        """No turn runs."""
        self._source = source
        self._marks = marks_for(encoding)
        self._watch: TurnWatch | None = None
        self.stopping = False

    def begin(self) -> None:
        """A turn begins."""
        self._watch = TurnWatch()
        self.stopping = False

    def prefill(self, event: PrefillProgress) -> None:
        """Some more is read."""
        if self._watch is not None:
            self._watch.prefill(event)

    def token(self, event: Token) -> None:
        """There is another token."""
        if self._watch is not None:
            self._watch.token(event)

    def end(self) -> None:
        """The turn is over."""
        self._watch = None

    def lines(self, columns: int, rows: int) -> list[Line]:
        """The dashboard now."""
        dialogue = self._source()
        figures = idle(dialogue) if self._watch is None else running(dialogue, self._watch, self.stopping)
        return lines(figures, columns, rows, self._marks)

    def segments(self, console: Console) -> list[list[Segment]]:
        """As Rich draws it."""
        width, height = console.size
        return [[Segment(text, RICH[style]) for style, text in one] for one in self.lines(width, height)]

    def fragments(self, columns: int, rows: int) -> list[tuple[str, str]]:
        """As prompt_toolkit draws it."""
        found: list[tuple[str, str]] = []
        for number, one in enumerate(self.lines(columns, rows)):
            found += [("", "\n")] if number else []
            found += [(PROMPT[style], text) for style, text in one]
        return found
