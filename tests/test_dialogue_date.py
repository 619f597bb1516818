"""The date that a dialogue began with: kept in its transcript, taken up again, and one for a whole replay."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_fakes import FULL, ScriptedEngine, make_session, printed
from replay_fakes import FakeEngine, options, transcript

from loopserve_cli import replay
from loopserve_cli.chat import run, start
from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.files import header
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import TurnDone
from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Message
from loopserve_cli.replay import book
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues, resume

OLD = "2026-01-09T10:00:00"
DATED = (
    "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chat(monkeypatch: pytest.MonkeyPatch, **given: Any) -> Conversation:
    """One turn; the conversation that it was part of."""
    conversation = Conversation(ScriptedEngine("the answer"))  # type: ignore[arg-type]
    monkeypatch.setattr(start, "load_conversation", lambda options, err: conversation)
    assert run(ChatOptions(ModelOptions(), SamplingOptions(), FULL, message="hi", **given)) == 0
    return conversation


def test_a_new_transcript_says_when_its_dialogue_began(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = chat(monkeypatch, save=Path("t.jsonl"))
    assert json.loads(Path("t.jsonl").read_text().splitlines()[0])["date"] == talk.date
    assert resume(Path("t.jsonl"))[0].date == talk.date
    assert read_dialogues(Path("t.jsonl"))[0].date == talk.date


@pytest.mark.parametrize(
    ("head", "date"),
    [
        (Header(date=OLD), OLD),
        (Header(date="2026-01-09"), "2026-01-09T00:00:00"),
        (Header(created=OLD), OLD),
        (Header(created="2020-02-02T09:00:00+00:00", date=OLD), OLD),
    ],
)
def test_a_dialogue_that_goes_on_keeps_its_date(head: Header, date: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TranscriptWriter(Path("old.jsonl"), head).rewrite([Message("user", "a"), Message("assistant", "b")])
    assert chat(monkeypatch, resume=Path("old.jsonl")).date == date


def test_a_date_elsewhere_on_earth_is_that_moment_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-02:00")
    time.tzset()
    try:
        head = Header(created="2026-01-09T23:00:00+00:00")
        TranscriptWriter(Path("old.jsonl"), head).rewrite([Message("user", "a"), Message("assistant", "b")])
        assert chat(monkeypatch, resume=Path("old.jsonl")).date == "2026-01-10T01:00:00"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_file_that_knows_no_date_goes_on_today(monkeypatch: pytest.MonkeyPatch) -> None:
    TranscriptWriter(Path("old.jsonl"), Header(created="long ago")).rewrite([Message("user", "a")])
    assert chat(monkeypatch, resume=Path("old.jsonl")).date > OLD


def test_a_date_in_a_file_that_is_none_is_refused_by_its_place() -> None:
    Path("t.jsonl").write_text('{"loopserve": 1, "date": "soon"}\n{"role": "user", "content": "a"}\n')
    with pytest.raises(TranscriptError, match="^t.jsonl:1: date is 'soon'; write it as"):
        read_dialogues(Path("t.jsonl"))


def test_clear_begins_a_dialogue_of_today_in_the_same_file() -> None:
    session = make_session("one", "two")
    session.conversation.begin(OLD)
    session.autosave = Autosave.new(Path("t.jsonl"), header(session), session.warn)
    session.ask("a")
    assert resume(Path("t.jsonl"))[0].date == OLD
    dispatch(session, "/clear")
    assert resume(Path("t.jsonl"))[0].date == session.conversation.date > OLD
    session.ask("b")
    head, messages, _ = resume(Path("t.jsonl"))
    assert head.date == session.conversation.date and [m.content for m in messages] == ["b", "two"]


def test_clear_before_anything_was_said_dates_the_file_that_comes() -> None:
    session = make_session("one")
    session.conversation.begin(OLD)
    session.autosave = Autosave.new(Path("t.jsonl"), header(session), session.warn)
    dispatch(session, "/clear")
    assert not Path("t.jsonl").exists()
    session.ask("a")
    assert resume(Path("t.jsonl"))[0].date == session.conversation.date > OLD


def test_load_takes_the_date_and_a_copy_keeps_it() -> None:
    TranscriptWriter(Path("old.jsonl"), Header(date=OLD)).rewrite([Message("user", "a"), Message("assistant", "b")])
    session = make_session("one", save=Path("t.jsonl"))
    dispatch(session, "/load old.jsonl")
    assert session.conversation.date == OLD
    dispatch(session, "/save copy.jsonl")
    assert resume(Path("copy.jsonl"))[0].date == OLD
    assert "error" not in printed(session)[1]


def test_all_dialogues_of_a_replay_have_one_date(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(FakeEngine):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.tokenizer = tiny.fresh_tokenizer(DATED)  # type: ignore[assignment]
            self.began: list[str] = []

        def turn(self, ids: list[int], *rest: Any) -> Any:
            self.began.append(self.tokenizer.decode(self.tokens + ids)[:19])
            self.tokens += ids
            yield TurnDone(TurnRecord(finish_reason="stop"))

    class Clock(book.datetime):  # type: ignore[misc]
        count = 0

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            cls.count += 1
            return cls(2026, 1, 9, 10, 0, cls.count)

    monkeypatch.setattr(book, "datetime", Clock)
    engine: list[Watched] = []

    def open_engine(given: Any, progress: Any) -> Watched:
        engine.append(Watched(given.profiles[0]))
        return engine[0]

    file = transcript(Path("d.jsonl"), ("one", [("a", "b"), ("c", "d")]), ("two", [("a", "b")]))
    assert replay.run(options(file, "full", "other"), open_engine) == 0  # type: ignore[arg-type]
    assert len(engine[0].began) == 8 and set(engine[0].began) == {"2026-01-09 10:00:01"}
