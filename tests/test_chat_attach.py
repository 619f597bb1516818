"""Files that go in front of a message: by /read, one or several, and by @FILE within it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_fakes import dialogue_of, engine_of, make_session, printed
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.mentions import mentioned
from loopserve_cli.chat.prompt import prompt_session
from loopserve_cli.chat.repl import handle, run_repl
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import ContextLimitError, UsageError

CTRL_D = "\x04"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "a.txt": "text of a\n",
        "b.txt": "text of b",
        "my file.txt": "mine",
        "long.txt": "x" * 90,
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


def chat(session: Session, keyboard: PipeInput, *keys: str) -> None:
    keyboard.send_text("".join(keys))
    run_repl(session, prompt_session(session, InMemoryHistory(), input=keyboard, output=DummyOutput()))


def names(session: Session) -> list[str]:
    return [one.name for one in session.attachments]


def completions(text: str) -> list[str]:
    """The whole lines that Tab may make of a line."""
    found = CommandCompleter(make_session()).get_completions(Document(text), CompleteEvent())
    return [text[: len(text) + c.start_position] + c.text for c in found]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a.txt", ["a.txt"]),
        ("a.txt b.txt", ["a.txt", "b.txt"]),
        ("  b.txt   a.txt ", ["b.txt", "a.txt"]),
        ("my file.txt", ["my file.txt"]),
        ("'my file.txt' a.txt", ["my file.txt", "a.txt"]),
        ('"my file.txt" "b.txt"', ["my file.txt", "b.txt"]),
        ("a.txt a.txt", ["a.txt"]),
    ],
)
def test_read_takes_one_file_or_several(argument: str, expected: list[str]) -> None:
    session = make_session("ok")
    dispatch(session, f"/read {argument}")
    assert names(session) == expected
    assert [line.partition(":")[0] for line in printed(session)[1].splitlines()] == expected


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("a.txt missing.txt", "^missing.txt: no such file"),
        ("no such.txt", "^no such.txt: no such file"),
        ("a.txt binary", "is a binary file"),
        ("a.txt folder", "is a folder"),
        ("a.txt 'b.txt", "a quote is not closed"),
    ],
)
def test_read_attaches_all_or_nothing(argument: str, wrong: str) -> None:
    session = make_session("ok")
    dispatch(session, "/read b.txt")
    with pytest.raises(UsageError, match=wrong):
        dispatch(session, f"/read {argument}")
    assert names(session) == ["b.txt"]


def test_read_says_how_long_a_file_is_and_whether_it_fits() -> None:
    session = make_session("ok", context_limit=100)
    dispatch(session, "/read a.txt long.txt")
    assert printed(session)[1].splitlines() == [
        "a.txt: 10 characters, 10 tokens of 100 free, go in front of your next message",
        "long.txt: 90 characters, 90 tokens of 90 free, go in front of your next message",
    ]
    dispatch(session, "/read b.txt")
    first, second = printed(session)[1].splitlines()
    assert first.startswith("b.txt: 9 tokens, but the context has room for 0; it will not fit unless")
    assert second == "b.txt: 9 characters, 9 tokens, go in front of your next message"


def test_read_says_that_old_turns_will_go_for_a_file_where_the_context_slides() -> None:
    session = make_session("ok", context_limit=100)
    session.ask("q" * 40)
    session.on_full = "slide"
    printed(session)
    dispatch(session, "/read long.txt")
    assert "the oldest turns will be forgotten for it" in printed(session)[1]


def test_without_a_limit_there_is_nothing_to_fit_into() -> None:
    session = make_session("ok", context_limit=None)
    dispatch(session, "/read a.txt")
    assert printed(session)[1] == "a.txt: 10 characters, 10 tokens, go in front of your next message\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what says @a.txt?", ["a.txt"]),
        ("@a.txt and @b.txt, then @a.txt again", ["a.txt", "b.txt"]),
        ("(see @a.txt)", ["a.txt"]),
        ("@\"my file.txt\" and @'b.txt'", ["my file.txt", "b.txt"]),
        ("line\n@./a.txt\n", ["a.txt"]),
        ("me@a.txt, @nobody, @folder, @ a.txt, @missing.txt @", []),
        ("@" + "n" * 5000 + " @~nobody-by-that-name/x", []),
    ],
)
def test_only_words_that_name_files_are_mentions(text: str, expected: list[str]) -> None:
    assert [path.name for path in mentioned(text)] == expected


def test_a_mentioned_file_goes_before_its_message_and_the_message_stays_as_it_was_typed(keyboard: PipeInput) -> None:
    session = make_session("one", "two")
    chat(session, keyboard, "what says @a.txt and @home?\r", "and now?\r", CTRL_D)
    assert engine_of(session).asked == ["text of a\n\nwhat says @a.txt and @home?", "and now?"]
    assert "a.txt: 10 characters, 10 tokens of 1,000 free" in printed(session)[1]


def test_a_mention_of_what_is_attached_already_adds_nothing() -> None:
    session = make_session("one")
    dispatch(session, "/read a.txt")
    handle(session, "see @a.txt")
    assert engine_of(session).asked == ["text of a\n\nsee @a.txt"]


def test_a_file_that_cannot_be_attached_brings_the_message_back(keyboard: PipeInput) -> None:
    session = make_session("one")
    chat(session, keyboard, "see @binary\r", "\x03", "hello\r", CTRL_D)
    assert engine_of(session).asked == ["hello"]
    assert "error: binary: is a binary file; give a text file" in printed(session)[1]


def test_a_message_that_comes_back_lets_its_files_go_and_keeps_those_of_read() -> None:
    session = make_session("one", "two", context_limit=60)
    dispatch(session, "/read b.txt")
    with pytest.raises(ContextLimitError):
        handle(session, "@a.txt " + "x" * 50)
    assert names(session) == ["b.txt"] and session.next_input.startswith("@a.txt xxx")
    assert dialogue_of(session) == []

    presses = [True]

    def press_once(number: int) -> None:
        if presses:
            presses.pop()
            os.kill(os.getpid(), 2)

    engine_of(session).at_word = press_once
    with session.interrupts.installed():
        handle(session, "see @a.txt")
    assert names(session) == ["b.txt"] and session.next_input == "see @a.txt"
    session.next_input = ""
    handle(session, "see @a.txt")
    assert engine_of(session).asked[-1] == "text of b\n\ntext of a\n\nsee @a.txt"


def test_a_command_mentions_nothing() -> None:
    session = make_session()
    dispatch(session, "/system look at @a.txt")
    assert names(session) == [] and session.conversation.system == "look at @a.txt"


def test_paths_complete_after_an_at_sign_and_in_read() -> None:
    assert completions("see @a.") == ["see @a.txt"]
    assert completions("see @my") == ['see @"my file.txt']
    assert completions('see @"my') == ['see @"my file.txt']
    assert completions("//x @b.") == ["//x @b.txt"]
    assert completions("me@a.") == completions("see a.") == completions("/undo @a.") == []
    assert completions("/read a.txt b.") == ["/read a.txt b.txt"]
    assert completions("/read a.txt 'my f") == ["/read a.txt 'my file.txt"]
    assert completions("/save a.txt ") == ["/save a.txt --kv"] and completions("/load a.txt b") == []
    assert completions("/read my f") == ["/read my file.txt"]


def test_tab_completes_a_mention_at_the_prompt(keyboard: PipeInput) -> None:
    session = make_session("ok")
    prompt = prompt_session(session, InMemoryHistory(), input=keyboard, output=DummyOutput())

    def type_keys() -> None:
        for key in ("see @lo", "\t", "\r"):
            time.sleep(0.3)
            keyboard.send_text(key)

    typist = threading.Thread(target=type_keys)
    typist.start()
    assert prompt.prompt() == "see @long.txt"
    typist.join()
