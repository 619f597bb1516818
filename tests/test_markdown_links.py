"""Links of an answer: where each leads stands in the text, and the terminal gets no link of its own."""

from __future__ import annotations

import io

import pytest

from loopserve_cli.chat.markdown import MarkdownStream
from loopserve_cli.output import CleanConsole


def screen(source: str, terminal: bool = False) -> str:
    stream = MarkdownStream()
    stream.feed(source)
    file = io.StringIO()
    console = CleanConsole(file=file, force_terminal=terminal, width=100)
    for piece in stream.finish():
        console.print(piece)
    return file.getvalue().strip()


CASES = {
    "[text](http://e.example/a)": "text (http://e.example/a)",
    '[text](http://e.example/a "title")': "text (http://e.example/a)",
    "[text](<http://e.example/a b>)": "text (http://e.example/a%20b)",
    "[http://good.example](http://e.example/a)": "http://good.example (http://e.example/a)",
    "[](http://e.example/a)": "(http://e.example/a)",
    "<http://e.example/a>": "http://e.example/a",
    "<who@e.example>": "who@e.example",
    "![alt](http://e.example/i.png)": "![alt](http://e.example/i.png)",
    '![alt](http://e.example/i.png "title")': "![alt](http://e.example/i.png)",
    "[![alt](http://e.example/i.png)](http://e.example/l)": "![alt](http://e.example/i.png) (http://e.example/l)",
    "[text][ref]\n\n[ref]: http://e.example/a": "[text][ref]\n\n[ref]: http://e.example/a",
    "[text](javascript:alert(1))": "[text](javascript:alert(1))",
    "[text](file:///etc/passwd)": "[text](file:///etc/passwd)",
    "[text](data:text/html,x)": "[text](data:text/html,x)",
    "- **[text](http://e.example/a)**": "• text (http://e.example/a)",
    "[text](http://e.example/&#x202e;x)": "text (http://e.example/%E2%80%AEx)",
}


@pytest.mark.parametrize("source", CASES)
def test_a_links_target_is_shown(source: str) -> None:
    assert screen(source) == CASES[source]


@pytest.mark.parametrize("source", CASES)
def test_no_link_goes_to_the_terminal(source: str) -> None:
    assert "\x1b]" not in screen(source, terminal=True)
