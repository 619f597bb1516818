"""Signals while a chat runs: one handler from its start to its end, so that Python's own never comes in between."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

QUIT_WITHIN = 2.0
# How long an interrupt that was raised may take to arrive, before another press raises it again.
ARRIVES_WITHIN = 1.0
ENDING = ("SIGTERM", "SIGHUP")
# What must not be left half-way: the store of keys and values, and files. Reading and writing whole files may end.
WHOLE = (
    "loopserve_cli.engine.",
    "loopserve_cli.transcript.copies",
    "loopserve_cli.transcript.lock",
    "loopserve_cli.transcript.open_file",
    "loopserve_cli.transcript.write",
    "loopserve_cli.chat.autosave",
)
MAY_END = ("loopserve_cli.engine.archive", "loopserve_cli.engine.saved")
# The status of a process that a signal ended is this and the signal's number.
SIGNALLED = 128

Take = Callable[[int], bool]


class Interrupts:
    """What Ctrl-C does now, and whether SIGTERM or SIGHUP asked for the end (`ending`, the signal's number).

    A press is noted, and a turn asks for it between tokens (`catching`). Only inside `raising` does it become a
    KeyboardInterrupt. At the prompt `take` gets it. So no press arrives where nobody expects it. The signals that end
    the program do as a press does, and need no second one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds; a test passes its own."""
        self.ending: int | None = None
        self.pressed = False
        self._clock = clock
        self._last: float | None = None
        self._raised = -ARRIVES_WITHIN
        self._raises = self._installed = False
        self._at_first: Callable[[], None] | None = None
        self._take: Take | None = None
        self._leave: Callable[[int], None] | None = None

    def press(self) -> None:
        """Ctrl-C was pressed on an empty input line just now."""
        self._last = self._clock()

    def recent(self) -> bool:
        """Was it pressed there within the last `QUIT_WITHIN` seconds, and did nothing else since?"""
        return self._last is not None and self._clock() - self._last < QUIT_WITHIN

    def forget(self) -> None:
        """A press that cleared text or stopped something is no first press for leaving."""
        self._last = None

    def clear(self) -> None:
        """Nothing runs, and nothing is to be stopped: presses so far are done with."""
        self.pressed = self._raises = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed already."""
        if self.pressed:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """0, or the status of a process that was told to end."""
        return 0 if self.ending is None else SIGNALLED + self.ending

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP inside; those before are put back. Must be entered in the main thread.

        A SIGHUP that is ignored, as under nohup, stays so.
        """
        if self._installed:
            yield
            return
        numbers = [getattr(signal, name) for name in ("SIGINT", *ENDING) if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        self._installed = True
        try:
            for number in numbers:
                if number == signal.SIGINT or before[number] is not signal.SIG_IGN:
                    signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._installed = False

    @contextlib.contextmanager
    def leaving(self, leave: Callable[[int], None]) -> Iterator[None]:
        """Inside there is nothing to lose: any of the signals calls `leave` with the exit status, at once."""
        self._leave = leave
        try:
            yield
        finally:
            self._leave = None

    @contextlib.contextmanager
    def prompting(self, take: Take) -> Iterator[None]:
        """Inside, `take` is offered every signal's number first; it says whether it took it."""
        self._take = take
        try:
            yield
        finally:
            self._take = None

    @contextlib.contextmanager
    def catching(self, at_first: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
        """While this runs, Ctrl-C only sets a flag, however often; yields the question "was it pressed?".

        `at_first` is called by the handler the first time. A press between the prompt and here counts; one after it
        raises nothing, in a command either: what was done here stands.
        """
        with self.installed():
            self._raises = False
            self._at_first = at_first
            try:
                yield lambda: self.pressed or self.ending is not None
            finally:
                self._at_first = None
                if self.pressed:
                    self.forget()
                self.pressed = self._raises = False

    @contextlib.contextmanager
    def raising(self) -> Iterator[Callable[[], None]]:
        """Inside, Ctrl-C raises KeyboardInterrupt, within `catching` from the second press on.

        Not while something is under way that must be whole: then it is only noted. Yields what ends this early.
        """

        def enough() -> None:
            self._raises = False

        try:
            self._raises = True
            yield enough
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._leave is not None:
            self._leave(SIGNALLED + number)
        if number != signal.SIGINT:
            self.ending = number
        if self._take is not None and self._take(number):
            return
        first, self.pressed = not self.pressed, True
        if self._at_first is not None and first:
            self._at_first()
            if number == signal.SIGINT:
                return
        if self._raises and self._clock() - self._raised >= ARRIVES_WITHIN and may_end(frame):
            self._raised = self._clock()
            raise KeyboardInterrupt


def may_end(frame: FrameType | None) -> bool:
    """Whether what runs may be left half-way, by the modules of the calls that led to it, the innermost first."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(MAY_END):
            return True
        if module.startswith(WHOLE):
            return False
        frame = frame.f_back
    return True


@contextlib.contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Keys typed meanwhile are not echoed; they wait for the next prompt. Nothing happens without a terminal."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, ValueError, OSError, termios.error):
        yield
        return
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    try:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal may be gone by now
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
