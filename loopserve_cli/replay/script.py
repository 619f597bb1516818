"""What is to be replayed: the dialogues of the transcripts as exchanges, and where their history comes from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loopserve_cli.errors import TranscriptError
from loopserve_cli.messages import Dialogue


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn to replay; `recorded` is the answer of the file, None when it has none, `reasoning` its thoughts."""

    user: str
    recorded: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """One dialogue to replay. `history` says what the next turn sees: "recorded" answers or "live" ones."""

    id: str
    source: str
    system: str | None
    exchanges: tuple[Exchange, ...]
    history: str


def read_scripts(transcripts: Sequence[str], history: str, max_turns: int | None) -> list[Script]:
    """Every dialogue of every transcript, ids made unique; raises TranscriptError."""
    from loopserve_cli.transcript import read_dialogues

    scripts: list[Script] = []
    for name in transcripts:
        scripts += [script_of(dialogue, name, history, max_turns) for dialogue in read_dialogues(locate(name))]
    if not scripts:
        raise TranscriptError(f"{', '.join(transcripts)}: no dialogue to replay")
    return unique_ids(scripts)


def locate(name: str) -> Path:
    """The file of a transcript: a path as it is; demo, demo:long and demo:xlong come with the package."""
    if name == "demo" or name.startswith("demo:"):
        from loopserve_cli.demo.files import bundled_path

        return bundled_path(name)
    return Path(name)


def script_of(dialogue: Dialogue, source: str, history: str, max_turns: int | None) -> Script:
    """The dialogue cut to `max_turns`; without a recorded answer for every turn but the last it is live."""
    system, exchanges = None, []
    for message in dialogue.messages:
        if message.role == "system":
            system = message.content
        elif message.role == "user":
            exchanges.append(Exchange(message.content))
        elif exchanges:
            exchanges[-1] = replace(exchanges[-1], recorded=message.content, reasoning=message.reasoning)
    exchanges = exchanges[:max_turns]
    if not exchanges:
        raise TranscriptError(f"{source}: dialogue {dialogue.id} has no user message, so there is no turn to replay")
    if any(exchange.recorded is None for exchange in exchanges[:-1]):
        history = "live"
    return Script(dialogue.id, source, system, tuple(exchanges), history)


def unique_ids(scripts: Iterable[Script]) -> list[Script]:
    """The scripts with "#2", "#3" ... after an id that came before, so that records can be told apart."""
    unique: dict[str, Script] = {}
    for script in scripts:
        names = itertools.chain([script.id], (f"{script.id}#{n}" for n in itertools.count(2)))
        name = next(name for name in names if name not in unique)
        unique[name] = replace(script, id=name)
    return list(unique.values())
