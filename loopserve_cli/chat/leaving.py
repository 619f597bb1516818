"""Words that are meant as the command to leave, and the question whether they are."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory

from loopserve_cli.chat.session import Session

WORDS = ("exit", "quit", "bye")
QUESTION = "leave? (y/n) "
YES, NO = ("y", "yes"), ("n", "no")


def is_farewell(line: str) -> bool:
    """Whether nothing but such a word was typed."""
    return line.strip().casefold() in WORDS


def ask_to_leave(
    session: Session, prompt: PromptSession[str], read: Callable[[Session, PromptSession[str]], str]
) -> None:
    """Ask until the answer is yes or no; `read` reads it, and raises EOFError when the user leaves at once.

    Neither question nor answer goes into the history of what was typed.
    """
    buffer, message = prompt.default_buffer, prompt.message
    history = buffer.history
    prompt.message, buffer.history = [("class:prompt", QUESTION)], InMemoryHistory()
    try:
        answer = ""
        while answer not in YES + NO and session.interrupts.ending is None:
            answer = read(session, prompt).strip().casefold()
    finally:
        prompt.message, buffer.history = message, history
    session.closing = answer in YES
    if answer in NO:
        session.note('going on; """bye""" sends the word\n')
