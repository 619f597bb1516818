"""@FILE in a message: the file's text goes before it. An @word that is no file is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completion, PathCompleter
from prompt_toolkit.document import Document

from loopserve_cli.chat.attach import attach
from loopserve_cli.chat.session import Session
from loopserve_cli.stats import TurnRecord

# At the beginning of a word: no address has its @ there.
MENTION = re.compile(r"""(?<![^\s([{])@(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"']\S*))""")
OPEN = re.compile(r"""(?<![^\s([{])@("[^"\n]*|'[^'\n]*|[^\s"']*)$""")
ENDS_SENTENCE = ".,;:!?)]}"


def mentioned(text: str) -> list[Path]:
    """The files that a message names, each once; what ends a sentence may follow a name without quotes."""
    found: dict[Path, None] = {}
    for double, single, bare in MENTION.findall(text):
        quoted = double or single
        names = [quoted] if quoted else [bare, bare.rstrip(ENDS_SENTENCE)]
        path = next((path for name in names if (path := _file(name)) is not None), None)
        if path is not None:
            found[path] = None
    return list(found)


def _file(name: str) -> Path | None:
    """The file of that name, if there is one; a folder is none."""
    try:
        path = Path(name).expanduser()
        return path if name and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown home folder, or a NUL in it
        return None


def ask(session: Session, text: str) -> TurnRecord | None:
    """Send a message with the files that it names; where it comes back to the input line, they are let go again.

    None if it was stopped before the answer began. Raises LoopserveError for a file that cannot be attached, too: the
    message is then back in the input line.
    """
    before = list(session.attachments)
    try:
        attach(session, mentioned(text))
    except BaseException:
        session.next_input = text
        raise
    try:
        return session.ask(text)
    finally:
        if session.next_input:
            session.attachments = [one for one in session.attachments if one in before]


def completions(text: str, event: CompleteEvent) -> Iterator[Completion]:
    """The files that may stand at the end of `text`, after an @; a name with blanks is put in quotes."""
    found = OPEN.search(text)
    if found is None:
        return
    word = found[1]
    quote, typed = (word[0], word[1:]) if word[:1] in ("'", '"') else ("", word)
    for one in PathCompleter(expanduser=True).get_completions(Document(typed), event):
        name = typed + one.text
        if quote or not any(letter.isspace() for letter in name):
            yield one
        else:
            yield Completion(f'"{name}', start_position=-len(word), display=one.display)
