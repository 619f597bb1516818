"""`/copy`, and the clipboards that it can reach."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_fakes import make_session, printed
from rich.console import Console

from loopserve_cli.chat.clipboard import MOST_BASE64, Clipboard
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Message

X11, WAYLAND, SSH = {"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}, {"SSH_CONNECTION": "a b"}
XTERM = {"TERM": "xterm-256color"}


class Programs:
    """The clipboard programs that are installed: what they were given, or how they fail."""

    def __init__(self, *installed: str, returncode: int = 0, error: Exception | None = None) -> None:
        self.installed, self.returncode, self.error = installed, returncode, error
        self.given: list[tuple[str, str]] = []

    def which(self, name: str) -> str | None:
        return f"/bin/{name}" if name in self.installed else None

    def run(self, words: Sequence[str], input: bytes, **more: object) -> SimpleNamespace:
        assert more["stdout"] == more["stderr"] == subprocess.DEVNULL and more["timeout"]
        if self.error is not None:
            raise self.error
        self.given.append((" ".join(words), input.decode()))
        return SimpleNamespace(returncode=self.returncode)


def clipboard(
    programs: Programs, environ: dict[str, str], terminal: io.StringIO | None = None, platform: str = "linux"
) -> Clipboard:
    return Clipboard(terminal, environ, programs.which, programs.run, platform)


@pytest.mark.parametrize(
    ("environ", "platform", "installed", "expected"),
    [
        (X11, "linux", ("xclip", "xsel"), "xclip -selection clipboard"),
        (X11, "linux", ("xsel",), "xsel --clipboard --input"),
        (X11 | WAYLAND, "linux", ("xclip", "wl-copy"), "wl-copy"),
        ({}, "darwin", ("pbcopy",), "pbcopy"),
        (X11 | SSH, "linux", ("xclip",), "xclip -selection clipboard"),
        ({"TMUX": "x"}, "linux", ("tmux", "xclip"), "tmux load-buffer -w -"),
        ({"TMUX": "x"} | WAYLAND | SSH, "linux", ("tmux", "wl-copy"), "tmux load-buffer -w -"),
    ],
)
def test_the_right_program_gets_the_text(
    environ: dict[str, str], platform: str, installed: tuple[str, ...], expected: str
) -> None:
    programs, terminal = Programs(*installed), io.StringIO()
    assert (
        clipboard(programs, environ | XTERM, terminal, platform).put("grün\n")
        == f"copied with {expected.split(maxsplit=1)[0]}"
    )
    assert programs.given == [(expected, "grün\n")]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("environ", [{}, X11, WAYLAND | SSH])
def test_without_a_program_the_terminal_gets_it(environ: dict[str, str]) -> None:
    terminal = io.StringIO()
    how = clipboard(Programs("wl-copy"), environ | XTERM, terminal).put("a\x1b]0;x\agrün")
    assert how.startswith("sent to the terminal's clipboard (OSC 52); where it takes none, ")
    assert ("install xclip, or " in how) == (environ == X11)
    assert ("install wl-clipboard, or " in how) == ("WAYLAND_DISPLAY" in environ)
    start, _, rest = terminal.getvalue().partition("52;c;")
    assert start == "\x1b]" and rest.endswith("\a")
    assert base64.b64decode(rest[:-1]).decode() == "a\x1b]0;x\agrün"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TERM": "dumb"},
        {"TERM": "linux"},
        XTERM | {"VTE_VERSION": "7600"},
        XTERM | {"TERM_PROGRAM": "Apple_Terminal"},
        {"TERM": "screen", "STY": "1.pts"},
    ],
)
def test_a_terminal_that_takes_none_is_not_written_to(environ: dict[str, str]) -> None:
    terminal = io.StringIO()
    with pytest.raises(LoopserveError, match=r"^no clipboard within reach; write it with /export FILE\.md$"):
        clipboard(Programs("xclip"), environ, terminal).put("a")
    assert terminal.getvalue() == ""


def test_no_terminal_and_no_program_says_what_to_install() -> None:
    with pytest.raises(LoopserveError, match="no clipboard within reach; install xclip, or write it with /export"):
        clipboard(Programs(), X11 | XTERM).put("a")
    with pytest.raises(LoopserveError, match="install wl-clipboard"):
        clipboard(Programs(), WAYLAND | XTERM).put("a")


def test_a_program_that_fails_gives_way_to_the_next_and_is_named_when_there_is_none() -> None:
    terminal = io.StringIO()
    assert "OSC 52" in clipboard(Programs("xclip", returncode=1), X11 | XTERM, terminal).put("a")
    with pytest.raises(LoopserveError, match="^xclip failed with 1; install xclip"):
        clipboard(Programs("xclip", returncode=1), X11).put("a")
    late = subprocess.TimeoutExpired("xclip", 5)
    with pytest.raises(LoopserveError, match="^xclip failed: TimeoutExpired; "):
        clipboard(Programs("xclip", error=late), X11).put("a")


def test_what_is_too_long_for_a_terminal_is_not_cut() -> None:
    terminal, longest = io.StringIO(), MOST_BASE64 // 4 * 3
    clipboard(Programs(), XTERM, terminal).put("x" * longest)
    terminal.seek(0), terminal.truncate()
    with pytest.raises(LoopserveError, match=r"^too long for the terminal's clipboard; write it with /export FILE"):
        clipboard(Programs(), XTERM, terminal).put("x" * (longest + 1))
    assert terminal.getvalue() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_real_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "wl-copy"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/got\nsleep 30 &\n")  # stays, as the real one does
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("loopserve_cli.chat.clipboard.sys.platform", "linux")
    session = make_session("the  answer\n")
    session.ask("a")
    printed(session)
    dispatch(session, "/copy")
    assert (tmp_path / "got").read_text() == session.conversation.messages[-1].content
    assert printed(session) == ("", "11 characters copied with wl-copy\n")


def test_the_last_answer_goes_through_the_chats_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "TMUX", "VTE_VERSION", "STY", "TERM_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("loopserve_cli.chat.clipboard.sys.platform", "linux")
    session = make_session("one", "two")
    with pytest.raises(UsageError, match="there is no answer to copy yet"):
        dispatch(session, "/copy")
    session.ask("a")
    session.conversation.messages.append(Message("assistant", "", partial=True, reasoning="hm"))
    printed(session)
    with pytest.raises(LoopserveError, match="no clipboard within reach"):  # no stream is a terminal
        dispatch(session, "/copy")
    session.err = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    dispatch(session, "/copy")
    assert base64.b64encode(b"one").decode() in printed(session)[1]
    with pytest.raises(UsageError, match="/copy takes no argument"):
        dispatch(session, "/copy 2")
