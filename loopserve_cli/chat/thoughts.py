"""What a model thinks while it thinks: dim lines, or one line about them when they are folded."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from loopserve_cli.chat.figures import thought_line


class ThoughtStream:
    """Thoughts come in by `feed`; finished lines go out by `settled`, the rest is `tail`. Hidden, they are counted."""

    def __init__(self, shown: bool, clock: Callable[[], float]) -> None:
        """Start with nothing."""
        self._shown = shown
        self._clock = clock
        self._pending = ""
        self._tokens = 0
        self._any = False
        self._began = clock()

    def feed(self, text: str) -> None:
        """Add what one token adds."""
        if not self._tokens:
            self._began = self._clock()
        self._tokens += 1
        self._pending += text
        self._any = self._any or bool(text)

    def settled(self) -> list[RenderableType]:
        """The complete lines since the last call."""
        complete, newline, rest = self._pending.rpartition("\n")
        if not self._shown or not newline:
            return []
        self._pending = rest
        return [Text(complete, style="dim")]

    def finish(self) -> list[RenderableType]:
        """Everything that is left, or how much it was."""
        rest, self._pending = self._pending, ""
        tokens, self._tokens = self._tokens, 0
        thought, self._any = self._any, False
        if self._shown or not thought:
            return [Text(rest, style="dim")] if rest else []
        return [Text(thought_line(tokens, (self._clock() - self._began) * 1e3), style="dim")]

    def tail(self) -> RenderableType:
        """The line that is being written."""
        return Text(self._pending, style="dim") if self._shown and self._pending else Group()
