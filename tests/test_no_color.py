"""NO_COLOR takes the colours, and nothing else."""

from __future__ import annotations

import io
import re

from chat_fakes import Screen
from rich.console import Console

from loopserve_cli.chat.live import LiveView
from loopserve_cli.chat.view import show
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.stats import TurnRecord


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_no_color_keeps_the_structure_without_a_colour() -> None:
    file, clock = io.StringIO(), Clock()
    environ = {"TERM": "xterm-256color", "NO_COLOR": "1"}
    console = Console(file=file, width=60, height=12, force_terminal=True, legacy_windows=False, _environ=environ)
    view = LiveView(console, clock, environ=environ)
    view.begin()
    clock.now += 1
    show(view, PrefillProgress(300, 900))
    clock.now += 1
    for letter in "# Title\n\n- a **bold** one\n\n```python\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n":
        show(view, Token(0, letter))
        clock.now += 1
    show(view, TurnDone(TurnRecord(finish_reason="stop", output_text="x")))
    view.end()
    written = file.getvalue()
    codes = {int(code or 0) for codes in re.findall(r"\x1b\[([\d;]*)m", written) for code in codes.split(";")}
    assert codes and not {code for code in codes if 30 <= code <= 49 or 90 <= code <= 107}, codes
    assert "━━━" in written and "300/900 tokens" in written
    shown = Screen(written).text
    assert all(part in shown for part in ("Title\n", " • a bold one\n", "x = 1\n", " a  b\n ────\n 1  2"))
    assert "\x1b[1mbold\x1b[0m" in written
