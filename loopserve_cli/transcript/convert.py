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
from loopserve_cli.transcript.write import PRIVATE, write_whole


def convert(
    source: Path | None,
    target: Path,
    format: str | None = None,
    overwrite: bool = False,
    warn: Warn = to_stderr,
    strict: bool = False,
) -> int:
    """Read `source` (None is stdin), whatever its format, and write `target`; returns how many dialogues there were.

    Without `format` the target's name decides: .jsonl is loopserve for a single dialogue and for questions
    without answers, else OpenAI messages; .json is ShareGPT. A bad record is left out and `warn` is told, or
    refused where `strict`; `warn` is also told what the target's format has no place for.
    """
    if target.suffix.lower() == ".gz":
        raise UsageError(f"{target}: files are written unpacked; leave .gz out of the name")
    if format is not None:
        _check_format(format)
    elif target.suffix.lower() not in (".jsonl", ".json"):
        raise UsageError(f"{target}: its name does not tell the format; add --to with one of {', '.join(SAVE_FORMATS)}")
    if target.exists() and not overwrite:
        raise LoopserveError(f"{target}: exists already; give another name, or add --overwrite")
    dialogues = read_dialogues(source, warn, strict)
    format = format or _guess(target, dialogues)
    save_dialogues(target, dialogues, format, overwrite)
    unheld = _unheld(dialogues, format)
    if unheld:
        warn(f"{target}: {format} has no place for {', '.join(unheld)}; left out")
    return len(dialogues)


def save_dialogues(path: Path, dialogues: Sequence[Dialogue], format: str, overwrite: bool = False) -> None:
    """Write dialogues to one file.

    Only "loopserve" keeps measurements, the marks of stopped answers, the date, empty answers, and questions
    without answers; it begins each dialogue with a header, so its file may hold several. "openai" lines have no
    id, since strict readers of that format refuse one; they and "vllm" keep tools and reasoning (as
    `reasoning_content`), "sharegpt" only tools, as JSON text like LLaMA-Factory.
    """
    _check_format(format)
    if not dialogues:
        raise LoopserveError(f"{path}: there is no dialogue to write")
    write_whole(path, SAVE_FORMATS[format](path, dialogues), overwrite, PRIVATE)


def _check_format(format: str) -> None:
    if format not in SAVE_FORMATS:
        raise UsageError(f"unknown format {format!r}; choose one of {', '.join(SAVE_FORMATS)}")


def _guess(target: Path, dialogues: Sequence[Dialogue]) -> str:
    if target.suffix.lower() == ".json":
        return "sharegpt"
    return "loopserve" if len(dialogues) == 1 or any(_questions_only(d) for d in dialogues) else "openai"


def _unheld(dialogues: Sequence[Dialogue], format: str) -> list[str]:
    """What the format has no place for, with how many dialogues have it."""
    if format == "loopserve":
        return []
    said = [dialogue.messages for dialogue in dialogues]
    counts = {
        "reasoning": sum(any(m.reasoning for m in messages) for messages in said) if format == "sharegpt" else 0,
        "the date": sum(dialogue.date is not None for dialogue in dialogues),
        "the marks of stopped answers": sum(any(m.partial for m in messages) for messages in said),
        "the marks of turns that had no room": sum(any(m.forgotten for m in messages) for messages in said),
        "measurements": sum(any(m.record is not None for m in messages) for messages in said),
    }
    return [f"{name} (of {count:,} of {len(dialogues):,} dialogues)" for name, count in counts.items() if count]


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
            tools=dialogue.tools,
        )
        text.append(checked_lines(header, dialogue.messages, f"{path}: dialogue {shown(dialogue.id)}"))
    return b"".join(text)


def _openai(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    rows = [{"messages": _role_content(path, d, "openai"), **_tools(d)} for d in dialogues]
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _vllm(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    return _document([{"id": d.id, "messages": _role_content(path, d, "vllm"), **_tools(d)} for d in dialogues])


def _sharegpt(path: Path, dialogues: Sequence[Dialogue]) -> bytes:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = []
    for dialogue in dialogues:
        said = _complete(path, dialogue, "sharegpt")
        row = {"id": dialogue.id, "conversations": [{"from": names[m.role], "value": m.content} for m in said]}
        if dialogue.tools:
            row["tools"] = json.dumps(dialogue.tools, ensure_ascii=False)
        rows.append(row)
    return _document(rows)


def _tools(dialogue: Dialogue) -> dict[str, Any]:
    """The field of tools, where there are some."""
    return {"tools": list(dialogue.tools)} if dialogue.tools else {}


def _document(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=2).encode() + b"\n"


def _role_content(path: Path, dialogue: Dialogue, format: str) -> list[dict[str, str]]:
    return [
        {"role": m.role, "content": m.content} | ({"reasoning_content": m.reasoning} if m.reasoning else {})
        for m in _complete(path, dialogue, format)
    ]


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
