"""Read a line, do what it says, again."""

from __future__ import annotations

import signal
from asyncio import AbstractEventLoop
from functools import partial
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.application.current import set_app

from loopserve_cli.chat.block import block_of
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.dialogue import brief
from loopserve_cli.chat.figures import thought_line
from loopserve_cli.chat.leaving import ask_to_leave, is_farewell
from loopserve_cli.chat.mentions import ask
from loopserve_cli.chat.newcomer import banner
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.shown import HUNG_UP, NotShown
from loopserve_cli.chat.terminal import encodable, terminal_gone, typed_ahead
from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message

TAIL_MESSAGES = 4
TAIL_LINES = 4
KEYBOARD = 0


def run_repl(session: Session, prompt: PromptSession[str]) -> int:
    """Until the user leaves, SIGTERM or SIGHUP comes, or the terminal goes away; returns the exit code.

    0: the user left; 1: the dialogue could not be saved, or the terminal is gone; 143, 129: SIGTERM, SIGHUP.
    """
    interrupts = session.interrupts
    with interrupts.installed():
        try:
            while not session.closing and interrupts.ending is None:
                try:
                    line = next_line(session, prompt)
                    if is_farewell(line):
                        ask_to_leave(session, prompt, next_line)
                        continue
                except EOFError:
                    break
                step(session, line)
            farewell(session)
        except BrokenPipeError:
            raise
        except OSError:
            terminal_gone()  # whatever was printed failed, and so would a line that says so
            session.sync()
            return interrupts.exit_code or 1
        return interrupts.exit_code or int(session.autosave.problem is not None)


def next_line(session: Session, prompt: PromptSession[str]) -> str:
    """What the user sends. What was typed before there was a prompt waits in it, and so does what a turn gave back.

    Raises EOFError when the user leaves, OSError when the terminal is gone.
    """
    app, interrupts = prompt.app, session.interrupts
    default, session.next_input = session.next_input, ""

    def leave() -> None:
        if app.is_running and not app.is_done:
            app.exit(exception=EOFError)

    def failed(_loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in HUNG_UP:
            app.exit(exception=error)
        elif isinstance(error, Exception):  # of the editor, or of a completion
            with set_app(app):
                run_in_terminal(partial(session.complain, error))

    def begin() -> None:
        interrupts.clear()
        assert app.loop is not None
        app.loop.set_exception_handler(failed)
        if interrupts.ending is not None:
            app.exit(exception=EOFError)

    def take(number: int) -> bool:
        if app.loop is None or app.is_done:
            return False
        app.loop.call_soon_threadsafe(app.key_processor.send_sigint if number == signal.SIGINT else leave)
        return True

    if prompt.input.fileno() == KEYBOARD:
        default += typed_ahead()
    with interrupts.prompting(take):
        # prompt_toolkit's own handling of SIGINT would put Python's handler back for a moment, and of errors waits for
        # a key behind a traceback.
        text = encodable(default)
        return encodable(prompt.prompt(default=text, pre_run=begin, handle_sigint=False, set_exception_handler=False))


def step(session: Session, line: str) -> None:
    """Do what a line says. Whatever goes wrong is a line, and the dialogue as before it. Ctrl-C only stops it."""
    put_back = session.state()
    try:
        handle(session, line)
    except BrokenPipeError:
        raise
    except (LoopserveError, NotShown) as error:
        session.complain(error)
    except KeyboardInterrupt:
        session.interrupts.forget()
        put_back()
        session.note("stopped")
    except Exception as error:  # the chat outlives a template that divides by zero, and memory that runs out
        put_back()
        session.complain(error)
    session.interrupts.clear()
    session.note("")


def handle(session: Session, line: str) -> None:
    """A command, or a message; an empty line is nothing."""
    text = line.strip()
    if not text:
        return
    block = block_of(text)
    if block is not None:
        if block.strip():
            send(session, block)
        return
    if text.startswith("/") and not text.startswith("//"):
        with session.interrupts.raising():
            session.interrupts.check()
            dispatch(session, text)
    else:
        send(session, text.removeprefix("/"))


def send(session: Session, text: str) -> None:
    """Ask the model; a message that was stopped before its answer began comes back."""
    if ask(session, text) is None and session.interrupts.ending is None:
        session.note("stopped before the answer began; your message is back in the input line")


def greet(session: Session) -> None:
    """Say what one talks with, and where it is kept."""
    engine = session.conversation.engine
    session.note(
        f"{session.model} on {engine.device} ({engine.dtype}) · profile {engine.profile.name} · "
        f"{session.view.name} view · /help"
    )
    if session.autosave.path is not None:
        session.note(f"saving to {session.autosave.path}")
    banner(session)


def show_tail(session: Session) -> None:
    """The end of a dialogue that goes on."""
    messages = [m for m in session.conversation.messages if m.role != "system"]
    if len(messages) > TAIL_MESSAGES:
        session.note(f"… {len(messages) - TAIL_MESSAGES} messages before")
    for message in messages[-TAIL_MESSAGES:]:
        session.note(excerpt(message))
    if session.unanswered is not None:
        session.note("> " + brief(session.unanswered))
        session.warn("this message has no answer yet: the chat ended before it was complete; /retry asks it again")


def excerpt(message: Message) -> str:
    """A message's first lines, the user's marked as they were typed."""
    lines = message.content.strip().splitlines() or ["(no answer)"]
    if message.reasoning:
        record = message.record
        lines.insert(0, thought_line(None if record is None else record.tokens_reasoning))
    shown = [line if len(line) <= 200 else line[:199] + "…" for line in lines[:TAIL_LINES]]
    if len(lines) > TAIL_LINES:
        shown.append(f"… {len(lines) - TAIL_LINES} lines more")
    if message.partial:
        shown.append("[stopped]")
    if message.role == "user":
        shown = [("  " if number else "> ") + line for number, line in enumerate(shown)]
    return "\n".join(shown)


def farewell(session: Session) -> None:
    """Say how to go on, or that something is not saved."""
    session.sync()
    autosave = session.autosave
    if autosave.problem is not None:
        session.warn(f"this dialogue is not saved: {autosave.problem}")
    elif autosave.begun:
        session.note(f"go on with: loopserve chat --resume {autosave.path}")
