"""The edge of the program: errors become one line on stderr and an exit code here, and nowhere else.

0 is well, 1 an error in the run, 2 wrong usage, 3 a failed `--fail-if`, 130 an interrupt (SIGINT), 143 the end that
SIGTERM asks for, 129 that of a terminal that closes (SIGHUP): as after an interrupt, what there is so far is told and
kept. A chat whose terminal closes while that signal is ignored ends with 1.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer

from loopserve_cli.errors import LoopserveError, in_a_line
from loopserve_cli.printable import printable, printable_line

INTERRUPTED = 130
# The status of a process that a signal ended is this and the signal's number.
SIGNALLED = 128
ENDING = ("SIGTERM", "SIGHUP")
# A terminal that closes is told of by the system and by the shell, each with a signal: both ask for the same end.
ONE_END = 2.0


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: an interrupt to all that knows how to end on one."""


class Termination:
    """Whether SIGTERM or SIGHUP came: `code` is then the exit code, None before."""

    def __init__(self) -> None:
        """Neither came yet."""
        self.code: int | None = None
        self._last = -ONE_END

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the signals raise `Terminated`; outside the main thread, or where they are ignored, they do not."""
        main = threading.current_thread() is threading.main_thread()
        numbers = [getattr(signal, name) for name in ENDING if main and hasattr(signal, name)]
        ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
        for number in ours:
            signal.signal(number, self._end)
        try:
            yield
        finally:
            for number in ours:
                signal.signal(number, signal.SIG_DFL)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Ask for the end; what comes right after it must not stop what is done at the end."""
        now = time.monotonic()
        self.code = self.code or SIGNALLED + number
        if now - self._last >= ONE_END:
            self._last = now
            raise Terminated


def guarded(command: Any, arguments: list[str]) -> int:
    """Run a Typer command; returns the exit code.

    `--debug`, wherever it stands before a `--`, adds the traceback, and shows the warnings and log lines of other
    packages; those that Python itself was asked for (`-W`, PYTHONWARNINGS) stay as asked.
    """
    termination = Termination()
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    debug = "--debug" in options
    if debug:
        arguments = ["--debug", *(word for word in options if word != "--debug"), *rest]
    try:
        if sys.stdout is None:
            raise LoopserveError("standard output is closed, and answers go there; redirect it to a file or /dev/null")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: an answer may hold any letter
        with termination.watched(), contextlib.nullcontext() if debug or sys.warnoptions else _others_quiet():
            code = _run(command, arguments)
        sys.stdout.flush()
        return termination.code or code if code == INTERRUPTED else code
    except KeyboardInterrupt:
        return termination.code or INTERRUPTED
    except BrokenPipeError:
        # The reader left, as `head` does: no error worth a line.
        _drop_stdout()
        return 1
    except Exception as error:  # whatever it is, the user gets a line that can be read
        if debug:
            _trace()
        _complain(error)
        if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
            _drop_stdout()
            if termination.code is not None:  # a terminal that closed cannot be told anything
                return termination.code
        return error.exit_code if isinstance(error, LoopserveError) else 1


@contextlib.contextmanager
def _others_quiet() -> Iterator[None]:
    """No warning and no log line of a package below us: a user can do nothing about them, and they tear the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _run(command: Any, arguments: list[str]) -> int:
    # Typer's UsageError comes from its own copy of click or from the installed one, by version.
    usage_error: Any = typer.BadParameter.__bases__[0]
    try:
        code = command.main(arguments, prog_name="loopserve", standalone_mode=False)
    except usage_error as error:
        path = error.ctx.command_path if error.ctx else "loopserve"
        message = error.format_message().rstrip(".").replace("\n", " ")
        _say(f"{message} See {path} --help" if message.endswith("?") else f"{message}; see {path} --help")
        return 2
    except typer.Abort:
        return INTERRUPTED
    return int(code or 0)


def _complain(error: Exception) -> None:
    if isinstance(error, LoopserveError):
        _say(str(error))
    else:
        _say(f"{in_a_line(error)} (run again with --debug for the traceback)")


def _say(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # the terminal may be gone; the exit code tells
            print(f"loopserve: {printable_line(text)}", file=sys.stderr)


def _trace() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(printable(traceback.format_exc()), end="", file=sys.stderr)


def _drop_stdout() -> None:
    # Python flushes once more at exit, and must not complain again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
