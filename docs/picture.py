"""Draws docs/dashboard.svg from a real run of the demo model; run it as `python docs/picture.py`.

What stands in the picture was measured as it was drawn, on the machine that ran this.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.segment import Segment, SegmentLines
from rich.text import Text

from loopserve_cli.bundled_files import bundled_path
from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.dashboard.panel import Panel
from loopserve_cli.chat.dashboard.source import dialogue
from loopserve_cli.chat.figures import turn_line
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.view import PlainView
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.engine.loader import load
from loopserve_cli.profile import load_profile
from loopserve_cli.transcript.writer import read_one

WIDTH, HEIGHT = 112, 36
OUT = Path(__file__).with_name("dashboard.svg")
TOLD = "The room of Miro is 417. The pet of Tesa is fox."
ASKED = "What is the room of Miro?"
# Words of pasted reports, a turn each: first under full attention, so that the dashboard knows what that costs.
DENSE, SPARSE = (800, 2000, 4000), (6000, 8000)


def main() -> None:
    """Talk, paste reports, and draw the last answer half-way."""
    engine = Engine(load(ModelOptions("demo"), lambda line: None, print), load_profile("full"))
    conversation = Conversation(engine)
    paper = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    session = Session(conversation, SamplingOptions(temperature=0), Autosave.off(), PlainView(sys.stdout), paper, paper)
    panel = Panel(partial(dialogue, session))
    report = reports()
    for words in DENSE:
        *_, done = conversation.ask(f"{TOLD} {next_words(report, words)}", session.sampling)
        assert isinstance(done, TurnDone)
        session.records.append(done.record)
    engine.set_profile(load_profile("loopserve"))
    for words in SPARSE:
        last = words == SPARSE[-1]
        show(session, panel, next_words(report, words), stop_after=4 if last else None)
        if not last:
            show(session, panel, ASKED, stop_after=None)
    svg = paper.export_svg(title="loopserve chat")
    # The fonts of whoever looks will do; a picture asks the network for nothing.
    OUT.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S), encoding="utf-8")


def reports() -> Iterator[str]:
    """What the user says in the longest bundled dialogue, word by word."""
    _, messages, *_ = read_one(bundled_path("demo:xlong"), print)
    for message in messages:
        if message.role == "user":
            yield from message.content.split()


def next_words(words: Iterator[str], count: int) -> str:
    """So many of them, up to the end of a sentence."""
    taken = list(islice(words, count))
    for word in words:
        taken.append(word)
        if word.endswith("."):
            break
    return " ".join(taken)


def show(session: Session, panel: Panel, text: str, stop_after: int | None) -> None:
    """One exchange as the chat shows it; after so many tokens, what is on the screen then."""
    paper = session.out
    said = text if len(text) < WIDTH else f"{text[:30]} ... {text[-30:]}  ({len(text):,} characters)"
    paper.print(Text(f"> {said}"))
    panel.begin()
    said, tokens = "", 0
    for event in events(session, text):
        match event:
            case PrefillProgress():
                panel.prefill(event)
            case Token():
                panel.token(event)
                said += event.text
                tokens += 1
                if tokens == stop_after:
                    paper.print(Text(said))
                    paper.print()
                    lines: list[list[Segment]] = panel.segments(paper)
                    paper.print(SegmentLines(lines, new_lines=True))
                    return
            case TurnDone():
                session.records.append(event.record)
                paper.print(Text(said))
                paper.print(Text(turn_line(event.record), style="dim"))
    panel.end()


def events(session: Session, text: str) -> Iterator[object]:
    """A turn's events."""
    yield from session.conversation.ask(text, session.sampling)


if __name__ == "__main__":
    main()
