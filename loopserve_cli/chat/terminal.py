"""The terminal itself: how it was, what was typed ahead on it, and that it is gone."""

from __future__ import annotations

import contextlib
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Iterator, Mapping

# Terminals that do not wrap their old lines anew, by TERM.
NO_REFLOW = ("linux", "rxvt", "screen")
# The cursor shown, pastes no longer bracketed, colours as they were.
PLAIN = b"\x1b[?25h\x1b[?2004l\x1b[0m"
KEY = re.compile(r"\x1b\[[0-9;?<>=]*[A-Za-z~]|\x1bO.|\x1b.?")
CHUNK = 65536
MOST = 1 << 20


@contextlib.contextmanager
def usable_afterwards() -> Iterator[Callable[[], None]]:
    """At the end the keyboard is as it was; yields what does so at once, and shows the cursor, safe in a handler."""
    try:
        import termios

        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (ImportError, AttributeError, ValueError, OSError, termios.error):
        yield lambda: None
        return
    screen = next((s.fileno() for s in (sys.stderr, sys.stdout) if s is not None and s.isatty()), None)
    drawn = screen is not None and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")

    def quit_raw_mode() -> None:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(keyboard, termios.TCSANOW, before)

    def restore() -> None:
        quit_raw_mode()
        if screen is not None and drawn:
            with contextlib.suppress(OSError):
                os.write(screen, PLAIN)

    try:
        yield restore
    finally:
        quit_raw_mode()


def leave_at_once(restore: Callable[[], None]) -> Callable[[int], None]:
    """Ends the process with a status, its terminal restored: for a signal while packages are being imported.

    An exception there is swallowed, or told as a failed import, by some of them.
    """

    def leave(status: int) -> None:
        restore()
        with contextlib.suppress(OSError):
            os.write(2, b"\n")
        os._exit(status)

    return leave


def typed_ahead() -> str:
    """What waits on the keyboard, as text to edit; nothing of it was shown or sent. Empty without a terminal.

    A trailing newline is dropped, as are keys that are not text.
    """
    try:
        import termios

        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (ImportError, AttributeError, ValueError, OSError, termios.error):
        return ""
    raw = list(before)
    raw[0] &= ~termios.ICRNL
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    data = b""
    try:
        termios.tcsetattr(keyboard, termios.TCSANOW, raw)
        try:
            while len(data) < MOST and select.select([keyboard], [], [], 0)[0]:
                piece = os.read(keyboard, CHUNK)
                if not piece:
                    break
                data += piece
        finally:
            termios.tcsetattr(keyboard, termios.TCSANOW, before)
    except (OSError, ValueError, termios.error):
        pass  # it is gone: the prompt will see so
    return as_text(data)


def as_text(data: bytes) -> str:
    """Typed bytes as text: lines end in newlines, control characters and the sequences of other keys are left out."""
    text = KEY.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable()).rstrip("\n")


def reflows(environ: Mapping[str, str]) -> bool:
    """Whether the terminal wraps its old lines anew when it gets narrower; the few that do not are known."""
    if environ.get("TMUX"):
        return True
    return not (environ.get("XTERM_VERSION") or environ.get("TERM", "").startswith(NO_REFLOW))


def encodable(text: str) -> str:
    """The text with a replacement character for each byte that was not UTF-8, and for half characters."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def terminal_gone() -> None:
    """Nobody reads what is printed to it from now on, and nothing must fail for it. Files and pipes stay."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
