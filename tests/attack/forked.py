"""Small processes to be killed: a fork of the test that runs one function and leaves without cleaning up."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from loopserve_cli.messages import Message


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child; its process id. The child ends with 0, or with 70 and a traceback."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(240)  # none outlives a test that failed
    status = 0
    try:
        alone()
        work()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        status = 70
    os._exit(status)


def alone() -> None:
    """In a child: compute on one thread. Of those that the test's process may have begun, a fork has none."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def ended(child: int) -> int:
    """Wait for it; its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def turn(number: int, who: str = "") -> list[Message]:
    """One exchange, the same for the same number."""
    text = f"{who}{number} " + "abcdefgh " * (number % 40)
    return [Message("user", f"question {text}"), Message("assistant", f"answer {text}")]
