"""The lines at the bottom of a terminal that are drawn again and again."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import ControlType, Segment, SegmentLines


class Region:
    """What a Rich Live shows, by one object that stays: Live shows another one only once it is told to refresh.

    So what is printed above it goes out together with the lines of now, and not with those of before.
    """

    def __init__(self, console: Console, reflows: bool) -> None:
        """Nothing is shown; `reflows` says that the terminal wraps its old lines anew when it gets narrower."""
        self.lines: list[list[Segment]] = []
        self._console = console
        self._reflows = reflows
        self._width = console.width
        self._drawn: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, one empty line at least."""
        yield SegmentLines(self.lines or [[]], new_lines=True)

    def drawn(self) -> None:
        """The lines stand on the terminal."""
        self._drawn = [Segment.get_line_length(line) for line in self.lines]

    @property
    def height(self) -> int:
        """How many lines were drawn last."""
        return len(self._drawn)

    def mend_narrowed(self) -> None:
        """After the terminal got narrower, erase the rows that the drawn lines were wrapped into.

        Rich goes up as many rows as it drew lines; those that the terminal added are ours to erase.
        """
        before, self._width = self._width, self._console.width
        if self._width >= before or not self._reflows:
            return
        extra = sum(max(0, -(-length // self._width) - 1) for length in self._drawn)
        erase = (ControlType.ERASE_IN_LINE, 2)
        self._console.control(Control(*[erase, (ControlType.CURSOR_UP, 1)] * extra))
