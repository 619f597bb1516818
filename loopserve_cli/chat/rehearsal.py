"""The first drawing, where nobody sees it."""

from __future__ import annotations

import io

from rich.console import Console

from loopserve_cli.chat.dashboard.panel import Panel
from loopserve_cli.chat.live import LiveView
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.stats import TurnRecord

ANSWER = "# A\n\n- *b* `c`\n\n```python\nd = 1\n```\n"


def rehearse(panel: Panel | None) -> None:
    """Draw once: what Rich, Pygments and the Markdown parser load for that, 0.2 s of it, is then in no turn."""
    nowhere = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})
    view = LiveView(nowhere)
    view.panel, view.dashboard = panel, panel is not None
    view.begin()
    view.token(Token(0, ANSWER))
    view.done(TurnDone(TurnRecord()))
