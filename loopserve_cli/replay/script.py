"""What is to be replayed: the dialogues of the transcripts as exchanges, and where their history comes from."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Dialogue
from loopserve_cli.nearest import nearest

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn to replay; `recorded` is the answer of the file and `reasoning` the thought before it, None without.

    A `partial` answer was stopped: it has no end.
    """

    user: str
    recorded: str | None = None
    reasoning: str | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """One dialogue to replay. `history` says what the next turn sees: "recorded" answers or "live" ones.

    `tools` are the functions that the template is given, `date` is when the dialogue began, where its file says it.
    """

    id: str
    source: str
    system: str | None
    exchanges: tuple[Exchange, ...]
    history: str
    tools: tuple[Mapping[str, Any], ...] = ()
    date: str | None = None


def read_scripts(transcripts: Sequence[str], history: str, max_turns: int | None, strict: bool = False) -> list[Script]:
    """Every dialogue of every transcript, - being stdin, ids made unique; raises TranscriptError.

    A bad record is left out and told on stderr, or refused where `strict`.
    """
    from loopserve_cli.transcript import read_dialogues

    scripts: list[Script] = []
    for name in transcripts:
        dialogues = read_dialogues(None if name == STDIN else locate(name), strict=strict)
        scripts += [script_of(dialogue, name, history, max_turns) for dialogue in dialogues]
    if not scripts:
        raise TranscriptError(f"{', '.join(transcripts)}: no dialogue to replay")
    return unique_ids(scripts)


def locate(name: str) -> Path:
    """The file of a transcript: a path as it is; demo, demo:long and demo:xlong come with the package."""
    from loopserve_cli.bundled_files import TRANSCRIPTS, bundled_path

    if name == "demo" or name.startswith("demo:"):
        return bundled_path(name)
    path = Path(name)
    if not os.path.lexists(path) and (near := nearest(name, TRANSCRIPTS)) is not None:
        raise TranscriptError(f"{name}: no such file; check the path; did you mean {near}?")
    return path


def script_of(dialogue: Dialogue, source: str, history: str, max_turns: int | None) -> Script:
    """The dialogue cut to `max_turns`; without a recorded answer for every turn but the last it is live."""
    system, exchanges = None, []
    for message in dialogue.messages:
        if message.role == "system":
            system = message.content
        elif message.role == "user":
            exchanges.append(Exchange(message.content))
        elif exchanges:
            exchanges[-1] = Exchange(exchanges[-1].user, message.content, message.reasoning, message.partial)
    exchanges = exchanges[:max_turns]
    if not exchanges:
        raise TranscriptError(f"{source}: dialogue {dialogue.id} has no user message, so there is no turn to replay")
    if any(exchange.recorded is None for exchange in exchanges[:-1]):
        history = "live"
    return Script(dialogue.id, source, system, tuple(exchanges), history, dialogue.tools, dialogue.date)


def unique_ids(scripts: Iterable[Script]) -> list[Script]:
    """The scripts with "#2", "#3" ... after an id that came before, so that records can be told apart."""
    unique: dict[str, Script] = {}
    for script in scripts:
        names = itertools.chain([script.id], (f"{script.id}#{n}" for n in itertools.count(2)))
        name = next(name for name in names if name not in unique)
        unique[name] = replace(script, id=name)
    return list(unique.values())
