"""Dialogues and files that the model's context has no room for: said in one line, and the chat goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from chat_fakes import make_session, printed

from loopserve_cli.chat import kv_file
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.repl import step
from loopserve_cli.chat.session import Attachment, Session
from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.errors import ContextLimitError, NumbersError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.transcript import Header, TranscriptWriter, resume

LIMIT = 200
EXACTLY_TOO_LONG = "a b " * LIMIT
FAR_TOO_LONG = "a b " * 50_000


def session_of(limit: int = LIMIT) -> Session:
    """On a tiny random model that reads so many tokens."""
    session = make_session()
    session.conversation = Conversation(Engine(tiny.loaded("llama"), load_profile("full")))
    session.conversation.engine.context_limit = limit
    session.sampling = SamplingOptions(max_new_tokens=3)
    return session


def not_tokenised(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a long text reaches the tokenizer."""
    pieces = session.conversation.template._pieces
    whole = pieces.tokenise

    def tokenise(said: str, piece: str) -> list[int]:
        assert len(piece) < 10_000, "a text that cannot fit was tokenised"
        return whole(said, piece)

    monkeypatch.setattr(pieces, "tokenise", tokenise)


@pytest.mark.parametrize("text", [EXACTLY_TOO_LONG, FAR_TOO_LONG])
def test_a_history_that_does_not_fit_leaves_a_chat_to_shorten_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    said = [Message("user", "hi"), Message("assistant", "ho"), Message("user", text), Message("assistant", "yes")]
    TranscriptWriter(path, Header("tiny", "full"), messages=said).close()
    session = session_of()
    dispatch(session, f"/load {path}")
    told = [line for line in printed(session)[1].splitlines() if "not prefilled" in line]
    assert len(told) == 1
    assert f"at most {LIMIT}" in told[0]
    assert all(remedy in told[0] for remedy in ("/undo", "/clear", "--context", "another model"))
    assert session.conversation.engine.tokens == []
    for line in ("/stats", "/tokens", f"/save {tmp_path / 'copy.jsonl'}"):
        step(session, line)
    shown, told_of = printed(session)
    assert "error" not in told_of
    assert "context limit" in shown
    assert resume(tmp_path / "copy.jsonl")[1] == said
    step(session, "more?")
    assert printed(session)[1].count("error: ") == 1
    assert session.next_input == "more?"
    assert session.conversation.messages == said
    step(session, "/undo")
    assert session.conversation.messages == said[:2]
    step(session, "again")
    assert [m.content for m in session.conversation.messages[:3]] == ["hi", "ho", "again"]
    assert len(session.conversation.messages) == 4


def test_a_dialogue_far_too_long_is_never_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of()
    not_tokenised(session, monkeypatch)
    session.conversation.load([Message("user", FAR_TOO_LONG), Message("assistant", "yes")])
    kv_file.feed(session, Path("none.jsonl"))
    for line in ("more?", "/tokens", "/undo"):
        step(session, line)
    shown, told = printed(session)
    assert "whole dialogue, at least" in shown
    assert told.count("error: ") == 1
    assert "at least" in told
    assert session.conversation.messages == []


def test_a_long_answer_counts_once_the_template_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of()
    not_tokenised(session, monkeypatch)
    session.conversation.load([Message("user", "hi"), Message("assistant", FAR_TOO_LONG)])
    kv_file.feed(session, Path("none.jsonl"))
    assert printed(session)[1].count("not prefilled") == 1


def test_a_message_far_too_long_comes_back_untokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of()
    not_tokenised(session, monkeypatch)
    session.attachments = [Attachment("f.txt", "text")]
    with pytest.raises(ContextLimitError, match=rf"at least [\d,]+ tokens, but the model reads at most {LIMIT}"):
        session.ask(FAR_TOO_LONG)
    assert session.next_input == FAR_TOO_LONG
    assert [one.name for one in session.attachments] == ["f.txt"]
    assert session.conversation.messages == []


def test_a_model_that_computes_no_numbers_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of()
    session.conversation.load([Message("user", "hi"), Message("assistant", "ho")])

    def nan() -> None:
        raise NumbersError("tiny computed NaN")

    monkeypatch.setattr(session, "feed", nan)
    kv_file.feed(session, Path("none.jsonl"))
    assert printed(session)[1] == "the history is not prefilled: tiny computed NaN\n"


def test_read_refuses_what_no_dialogue_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of()
    not_tokenised(session, monkeypatch)
    (tmp_path / "notes.txt").write_text(FAR_TOO_LONG)
    with pytest.raises(UsageError, match=rf"^notes.txt: at least [\d,]+ tokens, but the model reads at most {LIMIT}"):
        dispatch(session, f"/read {tmp_path / 'notes.txt'}")
    assert session.attachments == []


def test_read_warns_where_the_context_that_is_left_has_no_room(tmp_path: Path) -> None:
    session = make_session(context_limit=100)
    (tmp_path / "one.txt").write_text("a" * 60)
    (tmp_path / "two.txt").write_text("b" * 50)
    dispatch(session, f"/read {tmp_path / 'one.txt'}")
    assert printed(session)[1].count("\n") == 1
    dispatch(session, f"/read {tmp_path / 'two.txt'}")
    assert "two.txt: 50 tokens, but the context has room for 40; " in printed(session)[1]
    assert [one.name for one in session.attachments] == ["one.txt", "two.txt"]


def test_tokens_counts_what_is_attached_and_what_waits() -> None:
    session = make_session("four", context_limit=100)
    session.ask("abc")
    session.attachments = [Attachment("f.txt", "12345"), Attachment("g.txt", "67")]
    session.unanswered = "waiting"
    printed(session)
    dispatch(session, "/tokens")
    shown = dict(line.rsplit(maxsplit=1) for line in printed(session)[0].splitlines())
    rows = {name.strip(): int(value) for name, value in shown.items()}
    assert rows["attached files"] == 7
    assert rows["message that waits"] == 7
    assert rows["free"] == 100 - rows["whole dialogue"] - 14
