"""What `llm logs --json` writes (github.com/simonw/llm): an exchange a row, newest or oldest first."""

from __future__ import annotations

from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.beside import TOOLS, dialogue
from loopserve_cli.transcript.formats.found import Found, Record, Rows
from loopserve_cli.transcript.formats.rows import content_of, joined
from loopserve_cli.transcript.place import Place, as_id, as_text


def llm_logs(rows: Rows) -> list[Found]:
    """The exchanges of a conversation in the order of their times, whatever the file's; tools are left out, and named.

    Fragments stand before the prompt, as llm sends them. A question whose answer failed is joined with the next.
    """
    ordered = sorted(rows, key=lambda row: _time(row[1]))
    said: list[Message] = []
    lost: set[str] = set()
    system: Any = None
    for place, row in ordered:
        system, instructed = _instructed(system, row, place)
        lost |= instructed | {name for name in ("attachments",) if row.get(name)}
        lost |= {TOOLS} if row.get("tool_calls") or row.get("tool_results") else set()
        said.append(Message("user", _prompt(row, "prompt", "\n", place)))
        answer = row.get("response")
        thought = row.get("reasoning")
        said.append(
            Message(
                "assistant",
                as_text("" if answer is None else answer, "response", place, True),
                reasoning=as_text(thought, "reasoning", place, True) if isinstance(thought, str) else None,
            )
        )
    beside = {"id": rows[0][1].get("conversation_id") or rows[0][1].get("id"), "system": system}
    return [dialogue(beside, joined(said, rows[0][0]), ordered[0][0], lost=lost)]


def conversation_of(record: Record) -> str | None:
    """The conversation that a row of llm's log belongs to."""
    return as_id(record.get("conversation_id"))


def is_llm_log(record: Record) -> bool:
    """Whether the record is a row of llm's log."""
    return "prompt" in record and "response" in record and ("conversation_id" in record or "datetime_utc" in record)


def _time(row: Record) -> tuple[str, str]:
    """When an exchange was, as sortable text; ids of newer versions sort by time too."""
    return str(row.get("datetime_utc") or ""), str(row.get("id") or "").zfill(30)


def _instructed(system: Any, row: Record, place: Place) -> tuple[Any, set[str]]:
    """The conversation's system prompt after this row; one that changes on the way is lost."""
    now = _prompt(row, "system", "\n\n", place)
    if not now.strip() or now == system:
        return system, set()
    return (now, set()) if system is None else (system, {"system"})


def _prompt(row: Record, name: str, between: str, place: Place) -> str:
    """A row's prompt or system prompt, its fragments before it."""
    fragments = row.get(f"{name}_fragments")
    texts = [f.get("content") if isinstance(f, dict) else f for f in fragments] if isinstance(fragments, list) else []
    texts = [*texts, row.get(name)]
    given = [text for text in texts if text is not None and not (isinstance(text, str) and not text.strip())]
    return between.join(content_of(text, name, place)[0] for text in given)
