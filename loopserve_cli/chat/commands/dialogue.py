"""Commands that change the dialogue."""

from __future__ import annotations

from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.session import Session


def undo(session: Session, argument: str) -> None:
    """Take the last exchange back."""
    no_argument(argument, "/undo")
    text = session.take_back()
    session.note(f"taken back: {brief(text)}")


def retry(session: Session, argument: str) -> None:
    """Ask the last message again."""
    no_argument(argument, "/retry")
    if session.sampling.temperature == 0:
        session.note("temperature is 0, so the answer is likely the same; /set temperature 0.8 varies it")
    session.retry()


def edit(session: Session, argument: str) -> None:
    """Take the last exchange back and put its message into the input line."""
    no_argument(argument, "/edit")
    session.next_input = session.take_back()


def system(session: Session, argument: str) -> None:
    """Show or change the system prompt."""
    conversation = session.conversation
    if not argument:
        session.data(conversation.system or "there is no system prompt")
        return
    conversation.set_system(None if argument in ('""', "''") else argument)
    session.sync()
    session.note("system prompt changed" if conversation.system else "system prompt removed")
    if conversation.turns:
        session.note("the next turn prefills the dialogue again")


def clear(session: Session, argument: str) -> None:
    """Forget the dialogue; the system prompt stays."""
    no_argument(argument, "/clear")
    session.conversation.clear()
    session.autosave.begin(session.conversation.date)
    session.unanswered = None
    session.attachments = []
    session.sync()
    session.note("cleared" + ("; the system prompt stays" if session.conversation.system else ""))


def leave(session: Session, argument: str) -> None:
    """End the chat."""
    no_argument(argument, "/exit")
    session.closing = True


def brief(text: str, width: int = 60) -> str:
    """A message in one short line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
