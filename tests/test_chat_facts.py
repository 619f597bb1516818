"""`/show`: what one talks with, and where it is kept."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from chat_fakes import engine_of, make_session, printed

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.session import Session
from loopserve_cli.output import CleanConsole
from loopserve_cli.profile import load_profile


def shown(session: Session) -> dict[str, str]:
    """By name, every fact as it stands on the screen."""
    dispatch(session, "/show")
    told: dict[str, str] = {}
    name = ""
    for line in printed(session)[0].splitlines():
        name = line[:12].strip() or name
        told[name] = f"{told.get(name, '')} {line[12:].strip()}".strip()
    return told


@pytest.mark.parametrize("width", [60, 80, 120])
def test_show_tells_all_of_it_at_every_width(width: int, tmp_path: Path) -> None:
    session = make_session("four", save=tmp_path / "t.jsonl", context_limit=200)
    engine_of(session).profile = load_profile("streaming-llm+keep.budget=64+retain.tier=host")
    session.out = CleanConsole(file=io.StringIO(), width=width)
    assert shown(session)["transcript"].replace(" ", "").endswith("t.jsonl(fromthefirstmessageon)")
    session.ask("abc")
    told = shown(session)
    assert told["transcript"].replace(" ", "") == str(tmp_path / "t.jsonl")
    assert told["dialogue"].startswith("1 turn, began 20")
    assert {name: text for name, text in told.items() if name not in ("transcript", "dialogue")} == {
        "model": "fake",
        "device": "cpu",
        "dtype": "float32",
        "template": "the tokenizer's, 15 characters of Jinja; drops earlier thoughts; "
        "control tokens in messages are fed as text",
        "context": "10 of 200 tokens held (5%)",
        "profile": "streaming-llm+keep.budget=64+retain.tier=host: StreamingLLM: decoding reads 4 first and 60 recent "
        "keys; dense prefill",
        "tier": "host: the history stays in the host's memory, and is streamed layer by layer",
        "view": "plain",
    }


def test_show_tells_what_is_not_saved_or_not_known() -> None:
    session = make_session("four", context_limit=None)
    assert shown(session)["transcript"] == "none: this chat is not saved"
    assert shown(session)["context"] == "0 tokens held, no limit known"
    session.autosave = Autosave.off()
    session.autosave.problem = "disk full"
    engine_of(session).quant = "nf4"  # type: ignore[attr-defined]
    assert shown(session)["transcript"] == "not saved: disk full"
    assert shown(session)["dtype"] == "float32, weights in nf4"
