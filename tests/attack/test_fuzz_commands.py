"""Whatever is typed after a slash: an answer, or one line; never another exception."""

from __future__ import annotations

import tempfile
from contextlib import chdir, suppress
from pathlib import Path

import pytest
from chat_fakes import make_session, printed
from hypothesis import given, settings
from hypothesis import strategies as st

from loopserve_cli.chat.commands import COMMANDS, dispatch
from loopserve_cli.errors import LoopserveError

words = st.sampled_from([c.name for c in COMMANDS if c.name != "exit"]) | st.text()
rest = st.text() | st.sampled_from(
    ["", "x", "--kv", "x --kv", "~nobody", "~", "\0", "a\0b", "\ud800", "a" * 5000, "''", '"', "/dev", ".", "..", "x/y"]
)
lines = st.lists(st.tuples(words, rest), min_size=1, max_size=5)


def never_but_one_line(typed: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        session = make_session("one", save=Path("own.jsonl"))
        session.ask("hello")
        for name, argument in typed:
            session.conversation.engine.answers.append("more")  # type: ignore[attr-defined]
            with suppress(LoopserveError):
                dispatch(session, f"/{name} {argument}".strip())
        session.sync()
        "".join(printed(session)).encode(errors="surrogatepass")


@settings(deadline=None, max_examples=100)
@given(lines)
def test_a_command_never_raises_anything_else(typed: list[tuple[str, str]]) -> None:
    never_but_one_line(typed)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000)
@given(lines)
def test_a_command_never_raises_anything_else_long(typed: list[tuple[str, str]]) -> None:
    never_but_one_line(typed)
