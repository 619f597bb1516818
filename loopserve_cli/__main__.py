"""`python -m loopserve_cli`, the same as `loopserve`; imports nothing before Ctrl-C is looked after."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def run() -> int:
    """Import the program and run it; returns the exit code. Ctrl-C during the import ends it with 130, quietly."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not where it is ignored
        signal.signal(signal.SIGINT, leave)
    from loopserve_cli.app import main

    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


if __name__ == "__main__":
    sys.exit(run())
