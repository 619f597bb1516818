from __future__ import annotations

import io
import os
import random
import select

import pytest
from chat_fakes import Screen
from rich.console import Console

from loopserve_cli.chat.live import LiveView, Pace, reflows
from loopserve_cli.chat.markdown import MarkdownStream
from loopserve_cli.engine.events import PrefillProgress, Token, TurnDone
from loopserve_cli.stats import TurnRecord

DOCUMENTS = {
    "prose": "First line\nsecond line of *one* paragraph.\n\nAnother, with `code` and <b>html</b>.\n\n[x]: http://e.com\n",
    "lists": "Before:\n- one\n- two\n  goes on\n\n- three\n\n1. first\n2. second\n   - inner\n10. tenth\n\nEnd",
    "code": "Look:\n```python\ndef f():\n    s = '''a\n\n  b'''\n    return s\n\n\nf()\nf()\nf()\nf()\n```\nEnd.",
    "open fence": "text\n\n```\na\nb\nc\nd\ne\nf\ng",
    "long fence": "```text\n" + "\n".join(f"line {n}" for n in range(40)) + "\n```",
    "table": "Table:\n\n| a | b |\n|---|---|\n| one | two |\n| three | a longer cell |\n\nafter it",
    "mixed": "# Head\n\n> quoted\n> twice\n\n***\n\n## Sub\nText\n#hash\n    \n    indented code\n\nlast",
    "underline": "Not a heading\n---\nstill *here\nand* there",
    "odd line ends": "one\u2028still one\n\ntwo\u2029two\n\n```\nco\u2028de\n```\n",
    "nothing": "",
    "blank lines": "\n\n\na\n\n\n\nb\n\n\n",
}


def rendered(chunks: list[str], width: int = 60) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    stream = MarkdownStream()
    for chunk in chunks:
        stream.feed(chunk)
        for piece in stream.settled():
            console.print(piece)
    for piece in stream.finish():
        console.print(piece)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def chunked(text: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    chunks = []
    while text:
        size = rng.choice((1, 2, 3, 7, 30))
        chunks.append(text[:size])
        text = text[size:]
    return chunks


@pytest.mark.parametrize("name", DOCUMENTS)
def test_chunks_do_not_change_what_is_shown(name: str) -> None:
    text = DOCUMENTS[name]
    whole = rendered([text])
    for seed in range(25):
        assert rendered(chunked(text, seed)) == whole


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_word_is_shown_once_and_in_order(name: str) -> None:
    text = DOCUMENTS[name]
    for mark in "*`#>|-":
        text = text.replace(mark, " ")
    shown = rendered([DOCUMENTS[name]])
    for mark in "*`#>|-•─▌":
        shown = shown.replace(mark, " ")
    # A list shows its numbers without the dot.
    expected = [word.rstrip(".") if word.rstrip(".").isdigit() else word for word in text.split()]
    assert shown.split() == expected


def test_finished_blocks_do_not_wait_for_the_end() -> None:
    stream = MarkdownStream()
    stream.feed("one\n\ntwo\n\nthr")
    assert len(stream.settled()) == 1
    stream.feed("ee\n")
    # An empty line and the second paragraph.
    assert len(stream.settled()) == 2
    assert stream.settled() == []


def test_long_code_leaves_the_live_region_line_by_line() -> None:
    stream = MarkdownStream()
    stream.feed("```\n" + "\n".join(map(str, range(20))) + "\n")
    console = Console(file=io.StringIO(), width=40)
    for piece in stream.settled():
        console.print(piece)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().split() == ["```", *map(str, range(16))]


def live(width: int = 60, height: int = 12) -> tuple[LiveView, Console]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, legacy_windows=False)
    return LiveView(console, environ={"TERM": "xterm-256color"}), console


def play(view: LiveView, text: str, seed: int, finish: str = "stop") -> None:
    view.begin()
    view.prefill(PrefillProgress(2000, 4000))
    view.prefill(PrefillProgress(4000, 4000))
    for number, chunk in enumerate(chunked(text, seed)):
        view.token(Token(number, chunk))
    view.done(TurnDone(TurnRecord(finish_reason=finish)))
    view.end()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_screen_ends_with_the_whole_answer_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopserve_cli.chat.live.REDRAW_SECONDS", 0.0)
    monkeypatch.setattr("loopserve_cli.chat.live.REDRAW_SHARE", 1.0)
    view, console = live()
    play(view, DOCUMENTS[name], seed=3)
    assert isinstance(console.file, io.StringIO)
    expected = "\n".join(line.rstrip() for line in rendered([DOCUMENTS[name]]).split("\n")).rstrip("\n")
    assert Screen(console.file.getvalue()).text == expected


def test_a_long_prefill_shows_a_bar_and_a_short_one_does_not() -> None:
    view, console = live()
    view.begin()
    view._pace = Pace(lambda: 0.0)
    view.prefill(PrefillProgress(2048, 5000))
    assert isinstance(console.file, io.StringIO)
    assert "2,048/5,000 tokens" in Screen(console.file.getvalue()).text
    view.end()
    view, console = live()
    view.begin()
    view._pace = Pace(lambda: 0.0)
    view.prefill(PrefillProgress(40, 40))
    assert isinstance(console.file, io.StringIO)
    assert "40/40" not in console.file.getvalue()
    view.end()


def test_a_stopped_answer_is_marked() -> None:
    view, console = live()
    play(view, "half of a", seed=1, finish="cancelled")
    assert isinstance(console.file, io.StringIO)
    assert Screen(console.file.getvalue()).text == "half of a\n[stopped]"


def test_escapes_of_the_model_do_not_reach_the_terminal() -> None:
    view, console = live()
    play(view, "a\x1b[2Jb\x07c\x9bd", seed=1)
    assert isinstance(console.file, io.StringIO)
    assert "\x1b[2J" not in console.file.getvalue()
    assert Screen(console.file.getvalue()).text == "a␛[2Jb␇c�d"


def test_a_narrowed_terminal_leaves_no_rows_behind() -> None:
    view, console = live(width=60)
    view.begin()
    view._pace = Pace(lambda: 0.0)
    view.token(Token(0, "word " * 11))
    assert isinstance(console.file, io.StringIO)
    # The terminal wraps the drawn line of 54 columns into three rows of 20, the status of 22 into two.
    file = console.file
    file.seek(0)
    file.truncate()
    file.write("x" * 20 + "\n" + "x" * 20 + "\n" + "x" * 14 + "\n" + "1 tokens · Ctrl-C st\nops")
    console.width = 20
    view._draw()
    view.done(TurnDone(TurnRecord(finish_reason="stop")))
    assert Screen(file.getvalue()).text == "word word word word\n" * 2 + "word word word"


def test_redraws_are_at_most_twenty_a_second_and_a_fifth_of_the_time() -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    assert pace.due()
    now[0] += 0.001
    pace.drawn(100.0)
    now[0] = 100.049
    assert not pace.due()
    now[0] = 100.051
    assert pace.due()
    start, now[0] = now[0], now[0] + 0.1
    pace.drawn(start)
    now[0] += 0.39
    assert not pace.due()
    now[0] += 0.02
    assert pace.due()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "screen", "TMUX": "/tmp/x"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "linux"}, False),
    ],
)
def test_terminals_that_do_not_wrap_anew_are_known(environ: dict[str, str], expected: bool) -> None:
    assert reflows(environ) is expected


def all_there_is(screen: io.RawIOBase) -> str:
    """What the terminal has been sent, until it is quiet: a pseudo-terminal hands one drawing over in pieces."""
    sent = b""
    while select.select([screen], [], [], 0.3)[0]:
        sent += screen.read(4096) or b""
    return sent.decode()


def test_ctrl_c_is_answered_at_once() -> None:
    controller, terminal = os.openpty()
    with os.fdopen(controller, "rb", buffering=0) as screen, os.fdopen(terminal, "w") as file:
        view = LiveView(Console(file=file, width=60, height=10, force_terminal=True), environ={"TERM": "xterm"})
        view.begin()
        assert "stopping" not in all_there_is(screen)
        view.stopping()
        assert all_there_is(screen) == " stopping…"
        view.end()
        view.stopping()
        assert "stopping" not in all_there_is(screen)
