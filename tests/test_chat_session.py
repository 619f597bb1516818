from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from chat_fakes import dialogue_of, engine_of, make_session, printed

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.interrupts import Interrupts
from loopserve_cli.chat.session import Attachment
from loopserve_cli.errors import ContextLimitError, LoopserveError
from loopserve_cli.messages import Message
from loopserve_cli.transcript import Header, TranscriptWriter, resume


def on_disk(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["loopserve"] == 1
    return [(row["role"], row["content"]) for row in rows[1:]]


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_turn_is_shown_measured_and_kept() -> None:
    session = make_session("hello you")
    record = session.ask("hi")
    assert record is not None
    assert dialogue_of(session) == [("user", "hi"), ("assistant", "hello you")]
    out, err = printed(session)
    assert out == "hello you\n"
    assert err == "TTFT 12 ms · prefill n/a · decode n/a · 5 new/0 cached/14 logical · 2 out · rss 3.0 MiB\n"
    assert session.records == [record]


def test_the_message_is_on_disk_before_the_answer_begins(tmp_path: Path) -> None:
    session = make_session("hello you", save=tmp_path / "t.jsonl")
    seen: list[list[tuple[str, str]]] = []
    engine_of(session).at_word = lambda number: seen.append(on_disk(tmp_path / "t.jsonl"))
    session.ask("hi")
    assert seen == [[("user", "hi")]] * 3
    assert on_disk(tmp_path / "t.jsonl") == dialogue_of(session)


def test_ctrl_c_keeps_the_partial_answer_and_marks_it(tmp_path: Path) -> None:
    session = make_session("one two three", save=tmp_path / "t.jsonl")
    before = signal.getsignal(signal.SIGINT)

    def twice_at_two(number: int) -> None:
        if number == 1:
            press_ctrl_c()
            press_ctrl_c()

    engine_of(session).at_word = twice_at_two
    record = session.ask("count")
    assert record is not None
    assert record.finish_reason == "cancelled"
    assert session.conversation.messages[-1] == Message("assistant", "one", True, record)
    assert resume(tmp_path / "t.jsonl")[1] == session.conversation.messages
    assert printed(session)[1].endswith(" · cancelled\n")
    assert not session.interrupts.recent()  # a press that stopped an answer is no first one for leaving
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_the_first_token_gives_the_message_back(tmp_path: Path) -> None:
    session = make_session("one", "first answer", save=tmp_path / "t.jsonl")
    engine_of(session).answers.reverse()
    session.ask("a")
    session.attachments = [Attachment("f.txt", "text")]
    engine_of(session).at_word = lambda number: press_ctrl_c()
    assert session.ask("b") is None
    assert session.next_input == "b"
    assert [a.name for a in session.attachments] == ["f.txt"]
    assert dialogue_of(session) == on_disk(tmp_path / "t.jsonl") == [("user", "a"), ("assistant", "first answer")]


def test_a_turn_that_fails_leaves_dialogue_and_transcript_as_they_were(tmp_path: Path) -> None:
    session = make_session("fine", save=tmp_path / "t.jsonl", context_limit=40)
    session.ask("a")
    with pytest.raises(ContextLimitError):
        session.ask("b" * 50)
    assert dialogue_of(session) == on_disk(tmp_path / "t.jsonl") == [("user", "a"), ("assistant", "fine")]
    engine_of(session).answers = ["still here"]
    session.ask("c")
    assert dialogue_of(session)[-1] == ("assistant", "still here")


def test_a_reader_that_leaves_takes_only_its_turn_along(tmp_path: Path) -> None:
    session = make_session("one two", save=tmp_path / "t.jsonl")

    class Gone:
        name = "gone"

        def begin(self) -> None: ...
        def prefill(self, event: object) -> None: ...
        def done(self, event: object) -> None: ...
        def end(self) -> None: ...
        def stopping(self) -> None: ...
        def token(self, event: object) -> None:
            raise BrokenPipeError

    session.view = Gone()
    with pytest.raises(BrokenPipeError):
        session.ask("a")
    assert dialogue_of(session) == on_disk(tmp_path / "t.jsonl") == []


def test_retry_replaces_the_answer_and_a_failing_one_gives_the_old_back(tmp_path: Path) -> None:
    session = make_session("one", "two", "three", save=tmp_path / "t.jsonl")
    session.ask("a")
    session.retry()
    assert dialogue_of(session) == on_disk(tmp_path / "t.jsonl") == [("user", "a"), ("assistant", "two")]
    assert engine_of(session).asked == ["a", "a"]

    def fail(number: int) -> None:
        raise LoopserveError("out of memory")

    engine_of(session).at_word = fail
    with pytest.raises(LoopserveError, match="out of memory"):
        session.retry()
    assert dialogue_of(session) == on_disk(tmp_path / "t.jsonl") == [("user", "a"), ("assistant", "two")]


def test_a_retry_keeps_the_old_answer_on_disk_until_there_is_a_new_one(tmp_path: Path) -> None:
    session = make_session("one", "two words", save=tmp_path / "t.jsonl")
    session.ask("a")
    seen: list[list[tuple[str, str]]] = []
    engine_of(session).at_word = lambda number: seen.append(on_disk(tmp_path / "t.jsonl"))
    session.retry()
    assert seen == [[("user", "a"), ("assistant", "one")]] * 3
    assert on_disk(tmp_path / "t.jsonl") == [("user", "a"), ("assistant", "two words")]


def test_ctrl_c_after_the_last_token_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session("done", save=tmp_path / "t.jsonl")
    monkeypatch.setattr(session.view, "end", press_ctrl_c)
    sync, syncs = session.sync, []

    def slow() -> None:
        syncs.append(1)
        press_ctrl_c()
        sync()

    engine_of(session).at_word = lambda number: monkeypatch.setattr(session, "sync", slow)
    record = session.ask("a")
    assert record is not None and syncs == [1] and session.records == [record]
    assert on_disk(tmp_path / "t.jsonl") == dialogue_of(session) == [("user", "a"), ("assistant", "done")]


def test_a_message_without_an_answer_can_be_asked_again_or_dropped(tmp_path: Path) -> None:
    session = make_session("late answer", save=tmp_path / "t.jsonl")
    session.unanswered = "waiting"
    session.sync()
    assert on_disk(tmp_path / "t.jsonl") == [("user", "waiting")]
    session.retry()
    assert session.unanswered is None
    assert dialogue_of(session) == on_disk(tmp_path / "t.jsonl") == [("user", "waiting"), ("assistant", "late answer")]
    session.unanswered = "waiting again"
    assert session.take_back() == "waiting again"
    assert on_disk(tmp_path / "t.jsonl") == dialogue_of(session)


def test_attached_text_stands_before_the_message_once() -> None:
    session = make_session("a", "b")
    session.attachments = [Attachment("x", "text of x\n"), Attachment("y", "text of y")]
    session.ask("what is it?")
    session.ask("and now?")
    assert engine_of(session).asked == ["text of x\n\ntext of y\n\nwhat is it?", "and now?"]


def test_history_is_prefilled_outside_the_turn_and_ctrl_c_leaves_the_rest() -> None:
    session = make_session("new")
    session.conversation.load([Message("user", "q" * 20), Message("assistant", "a" * 20)])
    session.feed()
    assert engine_of(session).held == "\ue001" + "q" * 20 + "\ue003\ue002" + "a" * 20 + "\ue003"
    assert printed(session)[1] == "44 of 44 tokens of history are in the cache\n"
    record = session.ask("x")
    assert record is not None
    assert record.tokens_new == 4

    session = make_session("new")
    session.conversation.load([Message("user", "q" * 20), Message("assistant", "a" * 20)])
    feed_progress = engine_of(session).feed_progress

    def with_key(ids: list[int]):  # type: ignore[no-untyped-def]
        for event in feed_progress(ids):
            press_ctrl_c()
            yield event

    engine_of(session).feed_progress = with_key  # type: ignore[method-assign]
    session.feed()
    assert len(engine_of(session).tokens) == 10
    assert "10 of 44 tokens" in printed(session)[1]


class TestAutosave:
    def test_nothing_is_created_before_there_is_something_to_keep(self, tmp_path: Path) -> None:
        autosave = Autosave.new(tmp_path / "t.jsonl", Header("m", "full"), print)
        autosave.sync([])
        assert list(tmp_path.iterdir()) == []
        autosave.sync([Message("user", "a")])
        assert on_disk(tmp_path / "t.jsonl") == [("user", "a")]

    def test_new_messages_are_appended_and_changed_ones_rewritten(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        autosave = Autosave.new(path, Header("m", "full"), print)
        said = [Message("user", "a"), Message("assistant", "b")]
        autosave.sync(said[:1])
        inode = path.stat().st_ino
        autosave.sync(said)
        assert path.stat().st_ino == inode
        autosave.sync([Message("system", "s"), *said])
        assert on_disk(path) == [("system", "s"), ("user", "a"), ("assistant", "b")]
        assert path.stat().st_ino != inode

    def test_a_failing_disk_is_told_once_and_made_up_for_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        path = tmp_path / "t.jsonl"
        autosave = Autosave.new(path, Header("m", "full"), told.append)
        said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
        autosave.sync(said[:1])

        def full(self: TranscriptWriter, message: object) -> None:
            raise LoopserveError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(TranscriptWriter, "append", full)
            patch.setattr(TranscriptWriter, "rewrite", full)
            autosave.sync(said[:2])
            autosave.sync(said)
        assert told == ["not saved: disk full"]
        assert autosave.problem == "disk full"
        assert on_disk(path) == [("user", "a")]
        autosave.sync(said)
        assert autosave.problem is None
        assert told[1:] == [f"saved again: {path}"]
        assert on_disk(path) == [("user", "a"), ("assistant", "b"), ("user", "c")]

    def test_an_unusable_default_place_does_not_end_the_chat(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        told: list[str] = []
        autosave = Autosave.new(tmp_path / "file" / "t.jsonl", Header("m", "full"), told.append)
        autosave.sync([Message("user", "a")])
        assert len(told) == 1
        assert not autosave.begun
        with pytest.raises(LoopserveError):
            Autosave.new(tmp_path / "file" / "t.jsonl", Header("m", "full"), told.append, at_once=True)


def test_a_second_ctrl_c_counts_for_two_seconds() -> None:
    now = [10.0]
    interrupts = Interrupts(lambda: now[0])
    assert not interrupts.recent()
    interrupts.press()
    now[0] = 11.9
    assert interrupts.recent()
    now[0] = 12.0
    assert not interrupts.recent()
