"""The clipboard of the machine that one sits at: through a program of the system, or through the terminal (OSC 52)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from loopserve_cli.errors import LoopserveError

# hterm takes no more than 100,000 bytes of a sequence, its ends among them.
MOST_BASE64 = 99_992
SECONDS = 5.0
BLIND = ("", "dumb", "unknown", "linux")


@dataclass(frozen=True, slots=True)
class Clipboard:
    """Puts text into the clipboard. `terminal` is the terminal's stream, None without one; the rest is for tests."""

    terminal: TextIO | None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    which: Callable[[str], str | None] = shutil.which
    run: Callable[..., Any] = subprocess.run
    platform: str = sys.platform

    def put(self, text: str) -> str:
        """Copy the text; returns how, in words that follow "3 characters".

        Raises LoopserveError that says what to install, or to do instead.
        """
        problem = ""
        for words in self.programs():
            problem = self._given_to(words, text)
            if not problem:
                return f"copied with {words[0]}"
        if self.terminal is not None and self.terminal_listens():
            encoded = base64.b64encode(text.encode()).decode("ascii")
            if len(encoded) > MOST_BASE64:
                raise LoopserveError(f"too long for the terminal's clipboard; {self.advice()}")
            self.terminal.write(f"\x1b]52;c;{encoded}\a")
            self.terminal.flush()
            return f"sent to the terminal's clipboard (OSC 52); where it takes none, {self.advice()}"
        raise LoopserveError((f"{problem}; " if problem else "no clipboard within reach; ") + self.advice())

    def programs(self) -> list[Sequence[str]]:
        """The commands that are here and reach the right clipboard: over ssh those of this machine do not."""
        near = not (self.environ.get("SSH_CONNECTION") or self.environ.get("SSH_TTY"))
        wanted: list[Sequence[str]] = []
        if near and self.platform == "darwin":
            wanted.append(("pbcopy",))
        if near and self.environ.get("WAYLAND_DISPLAY"):
            wanted.append(("wl-copy",))
        if self.environ.get("DISPLAY"):  # which ssh may forward
            wanted += [("xclip", "-selection", "clipboard"), ("xsel", "--clipboard", "--input")]
        if self.environ.get("TMUX"):  # its own buffer, and the terminal's clipboard by its own means
            wanted.append(("tmux", "load-buffer", "-w", "-"))
        return [words for words in wanted if self.which(words[0]) is not None]

    def terminal_listens(self) -> bool:
        """Whether the terminal may take OSC 52: those that are known not to are left out, nobody can ask the others."""
        environ = self.environ
        deaf = environ.get("VTE_VERSION") or environ.get("STY") or environ.get("TERM_PROGRAM") == "Apple_Terminal"
        return environ.get("TERM", "") not in BLIND and not deaf

    def advice(self) -> str:
        """What to install, or to do without."""
        package = "wl-clipboard" if self.environ.get("WAYLAND_DISPLAY") else "xclip"
        graphic = self.environ.get("WAYLAND_DISPLAY") or self.environ.get("DISPLAY")
        return f"install {package}, or write it with /export FILE.md" if graphic else "write it with /export FILE.md"

    def _given_to(self, words: Sequence[str], text: str) -> str:
        """Hand the text to a program; returns what went wrong, or nothing."""
        try:
            # These programs stay in the background to serve the clipboard: a pipe that they hold would never end.
            done = self.run(
                words,
                input=text.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"{words[0]} failed: {type(error).__name__}"
        return f"{words[0]} failed with {done.returncode}" if done.returncode else ""
