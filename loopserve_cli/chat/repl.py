"""Read a line, do what it says, again."""

from __future__ import annotations

from prompt_toolkit import PromptSession

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.dialogue import brief
from loopserve_cli.chat.figures import thought_line
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message

TAIL_MESSAGES = 4
TAIL_LINES = 4


def run_repl(session: Session, prompt: PromptSession[str]) -> int:
    """Until the user leaves; returns the exit code, 1 where the dialogue could not be saved."""
    while not session.closing:
        default, session.next_input = session.next_input, ""
        try:
            line = prompt.prompt(default=default)
        except EOFError:
            break
        try:
            handle(session, line)
        except LoopserveError as error:
            session.complain(error)
        except KeyboardInterrupt:
            session.interrupts.press()
            session.note("stopped")
        session.note("")
    farewell(session)
    return 0 if session.autosave.problem is None else 1


def handle(session: Session, line: str) -> None:
    """A command, or a message; an empty line is nothing."""
    text = line.strip()
    if not text:
        return
    if text.startswith("/") and not text.startswith("//"):
        dispatch(session, text)
    elif session.ask(text.removeprefix("/")) is None:
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
