"""Open-WebUI's export: a tree of messages, whose answers hold folded blocks of reasoning and of tools."""

from __future__ import annotations

import html
import re

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.beside import TOOLS, dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record
from loopserve_cli.transcript.formats.rows import joined, message_of
from loopserve_cli.transcript.formats.trees import branch_to
from loopserve_cli.transcript.ours import NEEDS
from loopserve_cli.transcript.place import Place, as_list, as_object, need

DETAILS = re.compile(r'<details type="(\w+)"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>', re.DOTALL)


def open_webui(record: Record, place: Place) -> Found:
    """The branch that was shown; folded blocks of reasoning stand apart, those of tools are left out and named.

    What one side says in a row becomes one message.
    """
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
