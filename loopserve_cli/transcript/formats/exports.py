"""What chat programs export: ChatGPT, Claude, Open-WebUI and llm.

Of a dialogue with branches the one that was shown is read. Uses of tools are left out, and named; what one side
says in a row then becomes one message.
"""

from __future__ import annotations

import html
import re
from typing import Any

from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.formats.beside import dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record, Rows
from loopserve_cli.transcript.formats.rows import content_of, joined, message_of
from loopserve_cli.transcript.formats.trees import branch_to
from loopserve_cli.transcript.ours import NEEDS
from loopserve_cli.transcript.place import Place, as_id, as_list, as_object, as_text, need, shown

TOOLS = "messages of tools"
DETAILS = re.compile(r'<details type="(\w+)"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>', re.DOTALL)
CLAUDE_ROLES: dict[str, Role] = {"human": "user", "user": "user", "assistant": "assistant"}


def claude(record: Record, place: Place) -> Found:
    """Claude's export; text that was taken out of an attached file stands before the message, as it was asked."""
    rows = as_list(need(record, "chat_messages", place, "every record needs it"), "chat_messages", place)
    rows = [as_object(row, place.within(f"message {n}"), NEEDS) for n, row in enumerate(rows, 1)]
    nodes = {name: row for row in rows if (name := as_id(row.get("uuid"))) is not None}
    if any("parent_message_uuid" in row for row in rows):
        leaf = as_id(record.get("current_leaf_message_uuid")) or as_id(rows[-1].get("uuid"))
        rows = branch_to(leaf or "", nodes, lambda row: row.get("parent_message_uuid"), place) or rows
    said, lost = [], lost_in(rows) & {"files"}
    for number, row in enumerate(rows, 1):
        where = place.within(f"message {number}")
        sender = row.get("sender")
        role = CLAUDE_ROLES.get(sender) if isinstance(sender, str) else None
        if role is None:
            raise where.error(f"sender is {shown(str(sender))}, but must be human or assistant")
        text, thought, used = _claude_text(row, where)
        attached, whole = _attached(row, where)
        said.append(Message(role, "\n\n".join([*attached, *([text] if text.strip() else [])]), reasoning=thought))
        lost |= {TOOLS} if used else set()
        lost |= set() if whole else {"attachments"}
    return dialogue(record, joined(said, place), place, ("uuid",), lost)


def _claude_text(row: Record, place: Place) -> tuple[str, str | None, bool]:
    """A message's text, what was thought before it, and whether a tool was used."""
    blocks = row.get("content")
    blocks = [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    texts = [block["text"] for block in blocks if block.get("type") == "text" and isinstance(block.get("text"), str)]
    thoughts = [block["thinking"] for block in blocks if isinstance(block.get("thinking"), str)]
    text = "\n\n".join(text for text in texts if text.strip())
    if not text and isinstance(row.get("text"), str):
        text = row["text"]
    used = any(block.get("type") in ("tool_use", "tool_result") for block in blocks)
    thought = as_text("\n\n".join(thoughts), "thinking", place, True)
    return as_text(text, "text", place, True), thought or None, used


def _attached(row: Record, place: Place) -> tuple[list[str], bool]:
    """The texts of the attached files, and whether all of them have one."""
    files = row.get("attachments")
    files = files if isinstance(files, list) else []
    texts = [file.get("extracted_content") if isinstance(file, dict) else None for file in files]
    kept = [as_text(text, "extracted_content", place) for text in texts if isinstance(text, str) and text.strip()]
    return kept, len(kept) == len(files)


def open_webui(record: Record, place: Place) -> Found:
    """Open-WebUI's export; its folded blocks of reasoning and of tools are told from the answer."""
    chat = as_object(need(record, "chat", place, "every record needs it"), place, "chat needs history or messages")
    rows = _shown_rows(chat, place)
    lost = lost_in(rows) - {"name"}
    said = []
    for number, row in enumerate(rows, 1):
        where = place.within(f"message {number}")
        if row.get("content") in (None, "") and not row.get("tool_calls"):
            continue
        message = message_of(row, where)
        if message.role == "assistant" and "<details" in message.content:
            message, used = _unfolded(message)
            lost |= {TOOLS} if used else set()
        said.append(message)
    params = chat.get("params")
    system = chat.get("system") or (params.get("system") if isinstance(params, dict) else None)
    beside = {"id": record.get("id", chat.get("id")), "system": system}
    return dialogue(beside, joined(said, place), place, lost=lost)


def _shown_rows(chat: Record, place: Place) -> list[Record]:
    """The messages of the branch that was shown, or the list that older versions have."""
    history = chat.get("history")
    if isinstance(history, dict) and isinstance(history.get("messages"), dict) and history["messages"]:
        leaf = history.get("currentId")
        if not isinstance(leaf, str) or leaf not in history["messages"]:
            raise place.error("history.currentId names no message; export the chat again")
        return branch_to(leaf, history["messages"], lambda row: row.get("parentId"), place)
    rows = as_list(need(chat, "messages", place, "a chat needs history or messages"), "messages", place)
    return [as_object(row, place.within(f"message {number}"), NEEDS) for number, row in enumerate(rows, 1)]


def _unfolded(message: Message) -> tuple[Message, bool]:
    """The answer without its folded blocks, their reasoning apart, and whether a tool was used."""
    blocks = DETAILS.findall(message.content)
    thoughts = [_unquoted(text) for kind, text in blocks if kind == "reasoning"]
    thought = "\n\n".join(text for text in [message.reasoning or "", *thoughts] if text)
    rest = DETAILS.sub(lambda match: "" if match[1] in ("reasoning", "tool_calls") else match[0], message.content)
    return Message(message.role, rest.strip(), reasoning=thought or None), any(k == "tool_calls" for k, _ in blocks)


def _unquoted(text: str) -> str:
    """A block's text without the marks of a quotation."""
    lines = (line.removeprefix(">").removeprefix(" ") for line in text.strip().split("\n"))
    return html.unescape("\n".join(lines)).strip()


def llm_logs(rows: Rows) -> list[Found]:
    """`llm logs --json` (github.com/simonw/llm): the exchanges of a conversation in the order of their times.

    Fragments stand before the prompt, a line each, as llm sends them.
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
