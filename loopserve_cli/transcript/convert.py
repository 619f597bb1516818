"""Saves dialogues in a format of choice, and converts files between formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Dialogue, Message
from loopserve_cli.transcript.ours import Header, check_messages, checked_lines
from loopserve_cli.transcript.place import shown
from loopserve_cli.transcript.read import Warn, read_dialogues, to_stderr
from loopserve_cli.transcript.write import write_whole


def convert(
    source: Path, target: Path, format: str | None = None, overwrite: bool = False, warn: Warn = to_stderr
) -> int:
    """Read `source`, whatever its format, and write `target`; returns how many dialogues there were.

    Without `format` the target's name decides: .jsonl is loopserve for a single dialogue and for questions
    without answers, else OpenAI messages; .json is ShareGPT.
    """
    if format is not None:
        _check_format(format)
    elif target.suffix.lower() not in (".jsonl", ".json"):
        raise UsageError(f"{target}: its name does not tell the format; add --to with one of {', '.join(SAVE_FORMATS)}")
    if target.exists() and not overwrite:
        raise LoopserveError(f"{target}: exists already; give another name, or add --overwrite")
    dialogues = read_dialogues(source, warn)
    save_dialogues(target, dialogues, format or _guess(target, dialogues), overwrite)
    return len(dialogues)


def save_dialogues(path: Path, dialogues: Sequence[Dialogue], format: str, overwrite: bool = False) -> None:
    """Write dialogues to one file.

    Only "loopserve" keeps measurements, the marks of stopped answers, empty answers, and questions without
    answers; it begins each dialogue with a header, so its file may hold several. "openai" lines have no id,
    since strict readers of that format refuse one.
    """
    _check_format(format)
    if not dialogues:
        raise LoopserveError(f"{path}: there is no dialogue to write")
    write_whole(path, SAVE_FORMATS[format](path, dialogues), overwrite)


def _check_format(format: str) -> None:
    if format not in SAVE_FORMATS:
        raise UsageError(f"unknown format {format!r}; choose one of {', '.join(SAVE_FORMATS)}")


def _guess(target: Path, dialogues: Sequence[Dialogue]) -> str:
    if target.suffix.lower() == ".json":
        return "sharegpt"
    return "loopserve" if len(dialogues) == 1 or any(_questions_only(d) for d in dialogues) else "openai"


def _questions_only(dialogue: Dialogue) -> bool:
    """Whether it is several questions and no answer; a single question is a dialogue like any other."""
    roles = [m.role for m in dialogue.messages]
    return "assistant" not in roles and roles.count("user") > 1


def _ours(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    text = []
    for dialogue in dialogues:
        measured = next((m.record for m in dialogue.messages if m.record is not None), None)
        header = Header(
            model=measured.model if measured else None,
            profile=measured.profile if measured else None,
            id=dialogue.id,
            questions_only=_questions_only(dialogue),
            date=dialogue.date,
        )
        text.append(checked_lines(header, dialogue.messages, f"{path}: dialogue {shown(dialogue.id)}"))
    return b"".join(text)


def _openai(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    rows = [{"messages": _role_content(path, dialogue, "openai")} for dialogue in dialogues]
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _vllm(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    return _document([{"id": d.id, "messages": _role_content(path, d, "vllm")} for d in dialogues])


def _sharegpt(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = []
    for dialogue in dialogues:
        said = _complete(path, dialogue, "sharegpt")
        rows.append({"id": dialogue.id, "conversations": [{"from": names[m.role], "value": m.content} for m in said]})
    return _document(rows)


def _document(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=2).encode() + b"\n"


def _role_content(path: Path, dialogue: Dialogue, format: str) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in _complete(path, dialogue, format)]


def _complete(path: Path, dialogue: Dialogue, format: str) -> Sequence[Message]:
    """The messages, if the formats of others can hold them; they know no missing and no empty answers."""
    where = f"{path}: dialogue {shown(dialogue.id)}"
    if _questions_only(dialogue):
        raise LoopserveError(f"{where} has no answers, which {format} needs; use the loopserve format")
    check_messages(dialogue.messages, where)
    for number, message in enumerate(dialogue.messages, 1):
        if not message.content.strip():
            raise LoopserveError(
                f"{where}: message {number}: content is empty, which {format} forbids; use the loopserve format"
            )
    return dialogue.messages


SAVE_FORMATS: dict[str, Callable[[Path, Sequence[Dialogue]], bytes]] = {
    "loopserve": _ours,
    "openai": _openai,
    "sharegpt": _sharegpt,
    "vllm": _vllm,
}
