"""The edge of the program: errors become one line on stderr and an exit code here, and nowhere else.

0 is well, 1 an error in the run, 2 wrong usage, 3 a failed `--fail-if`, 130 an interrupt.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from loopserve_cli.errors import LoopserveError
from loopserve_cli.printable import printable


def guarded(command: Any, arguments: list[str]) -> int:
    """Run a Typer command; returns the exit code.

    `--debug`, wherever it stands, adds the traceback, and shows the warnings and log lines of other packages; those
    that Python itself was asked for (`-W`, PYTHONWARNINGS) stay as asked.
    """
    debug = "--debug" in arguments
    if debug:
        arguments = ["--debug", *(word for word in arguments if word != "--debug")]
    try:
        if sys.stdout is None:
            raise LoopserveError("standard output is closed, and answers go there; redirect it to a file or /dev/null")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: an answer may hold any letter
        with contextlib.nullcontext() if debug or sys.warnoptions else _others_quiet():
            code = _run(command, arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader left, as `head` does: no error worth a line.
        _drop_stdout()
        return 1
    except Exception as error:  # whatever it is, the user gets a line that can be read
        if debug:
            traceback.print_exc()
        _complain(error)
        if isinstance(error, OSError):
            _drop_stdout()
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
        return 130
    return int(code or 0)


def _complain(error: Exception) -> None:
    if isinstance(error, LoopserveError):
        _say(str(error))
    else:
        first = str(error).strip().partition("\n")[0]
        _say(f"{type(error).__name__}: {first} (run again with --debug for the traceback)")


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(f"loopserve: {printable(text)}", file=sys.stderr)


def _drop_stdout() -> None:
    # Python flushes once more at exit, and must not complain again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
