"""Tab: command names, then what the command takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from loopserve_cli.chat.commands import COMMANDS, find, names
from loopserve_cli.chat.commands.read import open_word
from loopserve_cli.chat.mentions import completions
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError


class CommandCompleter(Completer):
    """Completes lines that begin with one slash, and files after an @ in messages."""

    def __init__(self, session: Session) -> None:
        """Choices may depend on the session: the profile's settings, say."""
        self._session = session
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand at the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or text.startswith("//"):
            yield from completions(text, complete_event)
            return
        if "\n" in text:
            return
        name, blank, argument = text[1:].partition(" ")
        if blank:
            yield from self._arguments(name, argument, complete_event)
        else:
            yield from _names(name)

    def _arguments(self, name: str, argument: str, event: CompleteEvent) -> Iterator[Completion]:
        try:
            command = find(name)
        except UsageError:
            return
        if command.takes_path:
            found = list(self._paths.get_completions(Document(argument), event))
            if not found and command.arguments.endswith("..."):
                found = list(self._paths.get_completions(Document(open_word(argument)), event))
            yield from found
        if command.choices is not None:
            *before, word = argument.split(" ")
            yield from words(command.choices(self._session, [w for w in before if w]), word)


def _names(start: str) -> Iterator[Completion]:
    helps = {name: c.help for c in COMMANDS for name in (c.name, *c.aliases)}
    for name in names():
        if name.startswith(start):
            yield Completion(name, start_position=-len(start), display_meta=helps[name])


def words(choices: Iterable[str], start: str) -> Iterator[Completion]:
    """The choices that begin with what is typed."""
    for choice in choices:
        if choice.startswith(start):
            yield Completion(choice, start_position=-len(start))
