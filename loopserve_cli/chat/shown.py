"""Drawing on a terminal that may go away."""

from __future__ import annotations

from collections.abc import Callable


class Shown:
    """What draws a turn, and the error of a terminal that went away meanwhile: the turn is then to be stopped."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self.gone: OSError | None = None

    def draw(self, what: Callable[[], None]) -> None:
        """Draw, unless nobody sees it. A reader that left a pipe is no terminal that went away: that error passes."""
        if self.gone is not None:
            return
        try:
            what()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.gone = error
