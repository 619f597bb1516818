"""A chat under a pseudo-terminal, in a forked child: it starts at once, and any signal may hit it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import termios
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from chat_fakes import FULL, ScriptedEngine
from forked import alone

from loopserve_cli.chat import start
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.transcript import resume

ANSWER = " ".join(f"w{n}" for n in range(12))
WAIT = 100.0  # only what hangs takes as long


class ForkedChat:
    """One chat; `screen` is all that it wrote. `hook` runs in the child before it begins, with the engine."""

    def __init__(
        self,
        folder: Path,
        hook: Callable[[ScriptedEngine], None] = lambda engine: None,
        resumed: bool = False,
        real: str | None = None,
    ) -> None:
        """With `real`, the name of a view, it is the demo model that answers, and there is no hook."""
        self.path = folder / "t.jsonl"
        self.screen = ""
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            os.close(self.master)
            os.login_tty(self.slave)
            try:
                status = _child(folder, self.path, hook, resumed, real)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

    def type(self, text: str | bytes) -> None:
        os.write(self.master, text if isinstance(text, bytes) else text.encode())

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def look(self, seconds: float = 0.0) -> None:
        """Read what it writes, for so long at most."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                return
            if not piece:
                return
            if b"\x1b[6n" in piece:  # where is the cursor?
                os.write(self.master, b"\x1b[1;1R")
            self.screen += piece.decode("utf-8", "replace")
            seconds = 0.0

    def wait_for(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + WAIT
        while plain(self.screen).count(text) < times:
            assert time.monotonic() < end, f"{text!r} did not come {times} times; there is: {self.screen[-1500:]}"
            self.look(0.05)

    def prompts(self, times: int) -> None:
        """Until so many prompts were drawn."""
        end = time.monotonic() + WAIT
        while self.screen.count("\x1b[?2004h") < times:
            assert time.monotonic() < end, f"no prompt {times}: {self.screen[-1500:]}"
            self.look(0.05)

    def ended(self) -> int:
        """Its exit status; negative for a signal's number."""
        end = time.monotonic() + WAIT
        while True:
            self.look(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"it did not end: {self.screen[-1500:]}")

    def usable(self) -> bool:
        """Whether the terminal is as it was found: echo, lines, the cursor shown, pastes not bracketed."""
        modes = termios.tcgetattr(self.slave) == self.before
        hidden = self.screen.rfind("\x1b[?25l") > self.screen.rfind("\x1b[?25h")
        bracketed = self.screen.rfind("\x1b[?2004h") > self.screen.rfind("\x1b[?2004l")
        return modes and not hidden and not bracketed

    def said(self) -> list[tuple[str, str]]:
        """What the file holds, as a chat that goes on with it reads it."""
        return [(m.role, m.content) for m in resume(self.path, lambda line: None)[1]]

    def close(self) -> None:
        os.close(self.slave)
        os.close(self.master)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", text)


def _child(
    folder: Path, path: Path, hook: Callable[[ScriptedEngine], None], resumed: bool, real: str | None = None
) -> int:
    alone()
    os.chdir(folder)
    os.environ.update(XDG_STATE_HOME=str(folder / "state"), TERM="xterm", COLUMNS="100", LINES="30")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    engine = ScriptedEngine(*[ANSWER] * 20, context_limit=100_000)
    engine.at_word = lambda number: time.sleep(0.3 if number == -1 and len(engine.asked) else 0.01)

    def load(options: ChatOptions, err: object) -> Conversation:
        hook(engine)
        return Conversation(engine, options.system)  # type: ignore[arg-type]

    if real is None:
        start.load_conversation = load  # type: ignore[assignment]
    given = {"resume": path} if resumed else {"save": path}
    options = ChatOptions(ModelOptions(), SamplingOptions(), FULL, ui=real or "none", **given)  # type: ignore[arg-type]
    return start.run(options)
