"""A context that is nearly full, or full: it is said before the turn, and with slide the oldest turns are forgotten."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from chat_fakes import FULL, ScriptedEngine, dialogue_of, engine_of, make_session, printed
from test_chat_long import FAR_TOO_LONG, not_tokenised, session_of

from loopserve_cli.chat import run, start
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.files import begin_with
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.session import Session
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.demo.examples import EXAMPLES
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import load
from loopserve_cli.errors import ContextLimitError, LoopserveError, TranscriptError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.template import Template
from loopserve_cli.transcript import convert, resume


def talked(limit: int = 100, save: Path | None = None, answer: int = 10) -> Session:
    """Three turns of 12 tokens, then turns that slide; an answer is given `answer` tokens."""
    session = make_session(*"abcdefgh", save=save, context_limit=limit)
    session.sampling = replace(session.sampling, max_new_tokens=answer)
    session.conversation.set_system("sys")
    session.on_full = "slide"
    for text in ("first 1", "first 2", "first 3"):
        session.ask(text)
    printed(session)
    return session


def forgotten(session: Session) -> list[str]:
    return [m.content for m in session.conversation.messages if m.forgotten]


def test_the_oldest_whole_turns_go_until_message_and_answer_fit_and_the_system_prompt_stays() -> None:
    session = talked()  # 5 of the system prompt, 3 turns of 12
    assert len(engine_of(session).tokens) == 5 + 3 * 12 - 1
    record = session.ask("x" * 60)  # 41 + 63 + 10 do not fit in 100: two turns must go
    assert forgotten(session) == ["first 1", "a", "first 2", "b"]
    assert (
        engine_of(session).held == "\ue000sys\ue003\ue001first 3\ue003\ue002c\ue003\ue001" + "x" * 60 + "\ue003\ue002d"
    )
    assert record is not None and record.turn == 4 and record.tokens_logical == 81
    assert printed(session)[1].splitlines()[0] == (
        "the context is full, so turns 1-2 are forgotten: the model reads 80 tokens with this message; "
        "the transcript keeps them"
    )


def test_a_slide_frees_a_tenth_more_so_that_the_next_turns_need_none() -> None:
    session = make_session(*"abcdefghijklmnop", context_limit=100)
    session.sampling, session.on_full = replace(session.sampling, max_new_tokens=10), "slide"
    slid, fed = [], []
    for _ in range(14):
        record = session.ask("12345678")  # 12 tokens a turn, with its answer
        assert record is not None
        slid.append(sum(m.forgotten for m in session.conversation.messages) // 2)
        fed.append(record.tokens_new)
    assert slid == [0, 0, 0, 0, 0, 0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert [tokens > 20 for tokens in fed] == [False] * 7 + [True, False] * 3 + [True]


def test_no_more_turns_go_than_must() -> None:
    session = talked()
    session.ask("x" * 46)  # 41 + 49 + 10 is exactly 100
    assert forgotten(session) == []
    session = talked()
    session.ask("x" * 47)
    assert forgotten(session) == ["first 1", "a"]
    assert "so turn 1 is forgotten" in printed(session)[1]


def test_later_turns_forget_more_and_name_only_those() -> None:
    session = talked()
    session.ask("x" * 60)
    printed(session)
    session.ask("y" * 30)
    assert "so turns 3-4 are forgotten" in printed(session)[1]
    assert [m.forgotten for m in session.conversation.messages] == [False, *[True] * 8, False, False]


def test_an_answer_is_given_no_more_than_half_the_context() -> None:
    session = talked(answer=5000)
    session.ask("x" * 20)  # 41 + 23 + 50
    assert forgotten(session) == ["first 1", "a", "first 2", "b"]


def test_a_message_that_has_no_room_alone_forgets_nothing(tmp_path: Path) -> None:
    session = talked(save=tmp_path / "t.jsonl")
    with pytest.raises(ContextLimitError):
        session.ask("x" * 200)
    assert forgotten(session) == [] and session.next_input == "x" * 200
    assert resume(tmp_path / "t.jsonl")[1] == session.conversation.messages


def test_a_turn_that_fails_or_is_stopped_forgets_nothing(tmp_path: Path) -> None:
    session = talked(save=tmp_path / "t.jsonl")
    before = dialogue_of(session)

    def fail(number: int) -> None:
        raise LoopserveError("out of memory")

    engine_of(session).at_word = fail
    with pytest.raises(LoopserveError, match="out of memory"):
        session.ask("x" * 60)
    assert forgotten(session) == [] and dialogue_of(session) == before
    engine_of(session).at_word = lambda number: os.kill(os.getpid(), 2) if number == 0 else None
    with session.interrupts.installed():
        assert session.ask("x" * 60) is None
    assert forgotten(session) == [] and dialogue_of(session) == before
    assert resume(tmp_path / "t.jsonl")[1] == session.conversation.messages


def test_the_transcript_keeps_them_marked_and_resume_goes_on_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    session = talked(save=path)
    session.ask("x" * 60)
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [row["content"] for row in rows if row.get("forgotten")] == ["first 1", "a", "first 2", "b"]
    assert [row["role"] for row in rows] == ["system", *["user", "assistant"] * 4]
    again = make_session("next", context_limit=100)
    begin_with(again, resume(path)[1])
    again.feed()
    assert again.conversation.messages == session.conversation.messages
    assert engine_of(again).held == engine_of(session).held + "\ue003"
    record = again.ask("go on")
    assert record is not None and record.turn == 5
    assert engine_of(again).held.startswith("\ue000sys\ue003\ue001first 3\ue003")


def test_a_mark_that_is_none_is_an_error_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"loopserve": 1}\n{"role": "user", "content": "a", "forgotten": "yes"}\n')
    with pytest.raises(TranscriptError, match=":2: forgotten must be true or false, not text"):
        resume(path)


def test_convert_says_that_others_have_no_place_for_the_mark(tmp_path: Path) -> None:
    session = talked(save=tmp_path / "t.jsonl")
    session.ask("x" * 60)
    told: list[str] = []
    convert(tmp_path / "t.jsonl", tmp_path / "t.json", "openai", warn=told.append)
    assert "the marks of turns that had no room (of 1 of 1 dialogues)" in told[0]
    convert(tmp_path / "t.jsonl", tmp_path / "u.jsonl", "loopserve", warn=told.append)
    assert resume(tmp_path / "u.jsonl")[1] == session.conversation.messages


def test_undo_and_retry_work_on_what_is_left() -> None:
    session = talked()
    session.ask("x" * 60)
    dispatch(session, "/retry")
    assert forgotten(session) == ["first 1", "a", "first 2", "b"]
    assert engine_of(session).asked[-1] == "x" * 60
    dispatch(session, "/undo")
    dispatch(session, "/undo")
    assert [m.content for m in session.conversation.messages] == ["sys", "first 1", "a", "first 2", "b"]
    record = session.ask("anew")
    assert record is not None and engine_of(session).held.startswith("\ue000sys\ue003\ue001anew\ue003")


def test_retry_slides_too() -> None:
    session = talked(answer=10)
    session.ask("x" * 46)
    session.sampling = replace(session.sampling, max_new_tokens=30)
    dispatch(session, "/retry")
    assert forgotten(session) == ["first 1", "a", "first 2", "b", "first 3", "c"]


def test_tokens_counts_only_what_is_read() -> None:
    session = talked()
    session.ask("x" * 60)
    printed(session)
    dispatch(session, "/tokens")
    rows = dict(line.rsplit(maxsplit=1) for line in printed(session)[0].splitlines())
    assert {name.strip(): int(value) for name, value in rows.items()} == {
        "system prompt": 3,
        "your messages": 67,
        "answers": 2,
        "template": 10,
        "whole dialogue": 82,
        "of it in the cache": 81,
        "context limit": 100,
        "free": 18,
    }


def test_a_context_that_is_nearly_full_says_so_before_the_turn() -> None:
    session = make_session("ok", context_limit=1000)
    session.sampling = replace(session.sampling, max_new_tokens=50)
    session.ask("x" * 890)
    assert "nearly full" not in printed(session)[1]
    dispatch(session, "/undo")
    engine_of(session).answers.append("ok")
    printed(session)
    told: list[str] = []
    engine_of(session).at_word = lambda number: told.append(printed(session)[1]) if number == -1 else None
    session.ask("x" * 910)
    assert told == [
        "the context is nearly full: 913 of 1,000 tokens with this message, 87 are left for the answer; "
        "--on-full slide (in a chat: /full slide) forgets the oldest turns\n"
    ]


def test_little_room_for_an_answer_is_said_too_and_nothing_where_the_context_slides() -> None:
    session = make_session("one", "two", context_limit=1000)
    session.ask("x" * 510)  # an answer may have 500
    assert "nearly full: 513 of 1,000 tokens" in printed(session)[1]
    dispatch(session, "/undo")
    session.on_full = "slide"
    printed(session)
    session.ask("x" * 510)
    assert "full" not in printed(session)[1].replace("full attention", "")


def test_a_full_context_says_by_how_much_and_keeps_the_message() -> None:
    session = make_session("ok", context_limit=100)
    with pytest.raises(ContextLimitError):
        session.ask("x" * 110)
    assert session.next_input == "x" * 110
    assert printed(session)[1] == (
        "the context is full: 113 of 100 tokens with this message, which is 14 too many; "
        "--on-full slide (in a chat: /full slide) forgets the oldest turns\n"
    )


def test_the_message_is_tokenised_within_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted before the turn must not make the turn's own tokenising look free."""
    session = talked()
    ask = session.conversation.ask

    def watched(*given: object):  # type: ignore[no-untyped-def]
        texts.clear()
        return ask(*given)  # type: ignore[arg-type]

    texts: list[str] = []
    tokenizer = engine_of(session).tokenizer
    real = type(tokenizer).__call__

    def counted(self: object, text: str, add_special_tokens: bool) -> object:
        texts.append(text)
        return real(tokenizer, text, add_special_tokens)

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    monkeypatch.setattr(session.conversation, "ask", watched)
    session.ask("unheard of" + "x" * 50)
    assert any("unheard of" in text for text in texts)


def test_full_shows_and_changes_what_happens() -> None:
    session = talked()
    session.on_full = "stop"
    dispatch(session, "/full")
    assert printed(session)[0].splitlines() == [
        "40 tokens of 100 are in the cache",
        "on full: stop; a message that has no room is refused, and stays in the input line",
    ]
    dispatch(session, "/full slide")
    assert session.on_full == "slide"
    session.ask("x" * 60)
    printed(session)
    dispatch(session, "/full")
    assert printed(session)[0].splitlines()[-1] == "forgotten so far: 2 turns"
    with pytest.raises(UsageError, match="/full 'jump': must be stop or slide"):
        dispatch(session, "/full jump")
    unlimited = make_session(context_limit=None)
    dispatch(unlimited, "/full")
    assert printed(unlimited)[0].startswith("0 tokens without a limit are in the cache")


def options(**given: object) -> ChatOptions:
    return ChatOptions(ModelOptions(), SamplingOptions(max_new_tokens=10), FULL, **given)  # type: ignore[arg-type]


def test_on_full_is_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from loopserve_cli.app import main

    made = ScriptedEngine("one", "two", context_limit=100)
    monkeypatch.setattr(start, "load_conversation", lambda options, err: Conversation(made, options.system))  # type: ignore[arg-type]
    path = tmp_path / "t.jsonl"
    assert run(options(message="x" * 50, save=path)) == 0
    assert main(["chat", "--resume", str(path), "--max-new-tokens", "10", "y" * 50]) == 1
    out, err = capsys.readouterr()
    assert "too many" not in err and "the dialogue is too long for fake" in err  # one turn: the refusal alone
    assert main(["chat", "--resume", str(path), "--max-new-tokens", "10", "--on-full", "slide", "y" * 50]) == 0
    out, err = capsys.readouterr()
    assert out == "two\n" and "turn 1 is forgotten" in err
    assert [m.forgotten for m in resume(path)[1]] == [True, True, False, False]
    assert main(["chat", "--on-full", "jump", "hi"]) == 2
    assert "unknown --on-full 'jump'; choose one of stop, slide" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small_demo() -> Engine:
    return Engine(load(ModelOptions(context=120), lambda line: None, lambda line: None), load_profile("full"))


@pytest.mark.parametrize("profile", ["full", "loopserve", "snapkv+retain.tier=evict"])
def test_after_a_slide_a_model_answers_as_if_it_had_never_read_more(small_demo: Engine, profile: str) -> None:
    name, _, change = profile.partition("+")
    small_demo.set_profile(load_profile(name).with_overrides([change] if change else []))
    session = make_session()
    talk = session.conversation = Conversation(small_demo)
    session.sampling, session.on_full = SamplingOptions(max_new_tokens=20), "slide"
    for one in EXAMPLES:
        session.ask(one.line)
    assert session.conversation.messages[0].forgotten and "forgotten" in printed(session)[1]
    read = [replace(m, record=None) for m in talk.messages if not m.forgotten]
    assert small_demo.tokens == Template(small_demo.tokenizer).ids(read, False)[: len(small_demo.tokens)]
    fresh = make_session()
    fresh.conversation = Conversation(small_demo)
    begin_with(fresh, [Message(m.role, m.content) for m in read[:-2]])
    fresh.sampling = session.sampling
    fresh.ask(read[-2].content)
    assert fresh.conversation.messages[-1].content == read[-1].content


def test_full_completes() -> None:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    completer = CommandCompleter(make_session())
    assert [c.text for c in completer.get_completions(Document("/full s"), CompleteEvent())] == ["stop", "slide"]


@pytest.mark.parametrize("on_full", ["stop", "slide"])
def test_a_history_far_too_long_is_not_tokenised_to_see_that(on_full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of()
    said = [
        Message("user", "hi"),
        Message("assistant", "ho"),
        Message("user", FAR_TOO_LONG),
        Message("assistant", "yes"),
    ]
    session.conversation.load(said)
    session.on_full = on_full
    not_tokenised(session, monkeypatch)
    if on_full == "stop":
        with pytest.raises(ContextLimitError):
            dispatch(session, "/retry")
        assert session.conversation.messages == said
        return
    record = session.ask("and now?")
    assert record is not None and "turns 1-2 are forgotten" in printed(session)[1]
    assert [m.forgotten for m in session.conversation.messages] == [True] * 4 + [False] * 2
