"""Drawing on a terminal that may go away."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

# What a terminal says whose other side is closed.
HUNG_UP = (errno.EIO, errno.ENXIO)


class NotShown(Exception):
    """An answer that could not be written to the end; what there is of it is kept. Its cause is the OSError."""

    def __init__(self, error: OSError) -> None:
        """Say why."""
        super().__init__(f"the answer could not be shown: {error.strerror or error}; what there is of it is kept")


class Shown:
    """What draws a turn, and the error of a terminal that went away meanwhile: the turn is then to be stopped.

    `ms` is what all drawing has taken.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Nothing is shown yet."""
        self.gone: OSError | None = None
        self.ms = 0.0
        self._clock = clock

    def draw(self, what: Callable[[], None]) -> None:
        """Draw, unless nobody sees it. A reader that left a pipe, or a full disk, is no terminal: such errors pass."""
        if self.gone is not None:
            return
        began = self._clock()
        try:
            what()
        except OSError as error:
            if error.errno not in HUNG_UP:
                raise
            self.gone = error
        finally:
            self.ms += (self._clock() - began) * 1e3
