"""Somebody who has never seen the demo model: what it is told, and that what it is told to type works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_fakes import engine_of, make_session, printed
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from loopserve_cli.bundled_files import bundled_path
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.newcomer import asides, banner
from loopserve_cli.chat.prompt import prompt_session
from loopserve_cli.chat.repl import greet, run_repl
from loopserve_cli.chat.session import Session
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.demo.examples import EXAMPLES, FIRST
from loopserve_cli.demo.grammar import outside
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import load
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.transcript import read_dialogues


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


@pytest.fixture(scope="module")
def demo() -> Engine:
    return Engine(load(ModelOptions(), lambda line: None, print), load_profile("loopserve"))


def on_demo(*answers: str) -> Session:
    """A scripted session whose model has the demo's name."""
    session = make_session(*answers)
    engine_of(session).model_name = "demo"
    return session


def answered(talk: Conversation, line: str) -> str:
    *_, last = talk.ask(line, SamplingOptions())
    return talk.messages[-1].content


def test_each_example_is_answered_rightly_in_its_order(demo: Engine) -> None:
    talk = Conversation(demo)
    for one in EXAMPLES:
        answer = answered(talk, one.line)
        assert one.answer in (answer, None), one
    assert sum(one.answer is not None for one in EXAMPLES) >= 5


def test_the_banner_is_enough_for_a_right_answer(demo: Engine) -> None:
    session = on_demo()
    banner(session)
    shown = [line.strip() for line in printed(session)[1].splitlines() if line.startswith("  ")]
    assert shown == [one.line for one in FIRST] and len(shown) == 3
    talk = Conversation(demo)
    assert [answered(talk, line) for line in shown][-1] == "The room of Miro is 417."


def test_the_examples_hold_after_a_long_dialogue(demo: Engine) -> None:
    talk = Conversation(demo)
    talk.load(list(read_dialogues(bundled_path("demo"))[0].messages))
    for one in EXAMPLES:
        assert one.answer in (answered(talk, one.line), None), one


def test_the_banner_fits_a_narrow_terminal_and_names_the_commands() -> None:
    session = on_demo()
    greet(session)
    lines = printed(session)[1].splitlines()[1:]
    assert max(map(len, lines)) <= 60
    assert "tiny model" in lines[0] and "/example" in lines[-1] and "/help" in lines[-1]


def test_there_is_no_banner_for_other_models_and_where_a_dialogue_goes_on() -> None:
    session = make_session()
    banner(session)
    assert printed(session)[1] == ""
    session = on_demo()
    session.conversation.load([Message("user", "a"), Message("assistant", "b")])
    banner(session)
    assert printed(session)[1] == ""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("hello", '"hello"'),
        ("What can you do?", '"What can you do?"'),
        ("The pet of Miro Falk is cat.", '"Falk"'),
        ("The room of Miro is 417. My name is Bob.", '"My"'),
        ("What is the room of Miro, and how is Tesa?", '"What is the room of Miro, and…"'),
        ("What is the room of Miro? Tell me everything.", '"everything"'),
        ("The week was calm and early again in the kitchen this evening.", '"The week was calm and early a…"'),
    ],
)
def test_what_the_model_was_never_taught_is_said_beside_its_answer(text: str, names: str) -> None:
    first, second = asides("demo", text)
    assert first == f"this demo model cannot talk about {names}: ignore its answer"
    assert "The room of Miro is 417." in second and outside("The room of Miro is 417.") is None
    assert asides("fake", text) == []


def test_a_missing_capital_letter_is_mended() -> None:
    assert asides("demo", "the room of Miro is 417. what is the room of Miro") == [
        "this demo model needs the capital letter of a sentence:",
        "  The room of Miro is 417. What is the room of Miro",
    ]


@pytest.mark.parametrize("text", [one.line for one in EXAMPLES])
def test_nothing_is_said_beside_what_it_was_taught(text: str) -> None:
    assert asides("demo", text) == []


def test_the_aside_follows_the_answer_once_and_only_the_models_own_words_are_its_answer() -> None:
    session = on_demo("Noted.", "Noted.")
    session.ask("hello")
    out, err = printed(session)
    assert out == "Noted.\n" and err.count("cannot talk about") == 1
    session.ask("How are you today?")
    assert "cannot talk about" not in printed(session)[1]


def test_example_puts_one_line_after_another_into_the_input(keyboard: PipeInput) -> None:
    session = on_demo(*("ok" for _ in range(3)))
    keys = "/example\r" + "\r" + "/example\r" + "\r" + "\x04"
    keyboard.send_text(keys)
    run_repl(session, prompt_session(session, InMemoryHistory(), input=keyboard, output=DummyOutput()))
    assert engine_of(session).asked == [EXAMPLES[0].line, EXAMPLES[1].line]
    assert f"{EXAMPLES[1].shows}; Enter sends it" in printed(session)[1]


def test_example_begins_again_after_the_last() -> None:
    session = on_demo()
    for one in (*EXAMPLES, EXAMPLES[0]):
        dispatch(session, "/example")
        assert session.next_input == one.line


@pytest.mark.parametrize("width", [80, 120])
def test_example_lists_all_at_once(width: int) -> None:
    session = on_demo()
    session.out.width = width
    dispatch(session, "/example list")
    rows = [line.rstrip().split("  ", 1) for line in printed(session)[0].splitlines()]
    assert [(line, shows.strip()) for line, shows in rows] == [(one.line, one.shows) for one in EXAMPLES]
    assert session.next_input == ""


def test_example_list_is_readable_at_60_columns() -> None:
    session = on_demo()
    session.out.width = 60
    dispatch(session, "/example list")
    assert [line.rstrip() for line in printed(session)[0].splitlines()] == [one.line for one in EXAMPLES]


@pytest.mark.parametrize(
    ("line", "wrong"), [("/example 3", "/example '3': give list"), ("/example", "understands what")]
)
def test_example_refuses_what_it_cannot_do(line: str, wrong: str) -> None:
    session = make_session() if line == "/example" else on_demo()
    with pytest.raises(UsageError, match=wrong):
        dispatch(session, line)


def test_example_completes() -> None:
    completer = CommandCompleter(make_session())
    assert [c.text for c in completer.get_completions(Document("/example l"), CompleteEvent())] == ["list"]
