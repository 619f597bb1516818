"""Claude's export: lists of messages of blocks, newer ones with each message's parent."""

from __future__ import annotations

from loopserve_cli.messages import Message, Role
from loopserve_cli.transcript.formats.beside import TOOLS, dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record
from loopserve_cli.transcript.formats.rows import joined
from loopserve_cli.transcript.formats.trees import branch_to
from loopserve_cli.transcript.ours import NEEDS
from loopserve_cli.transcript.place import Place, as_id, as_list, as_object, as_text, need, shown

ROLES: dict[str, Role] = {"human": "user", "user": "user", "assistant": "assistant"}


def claude(record: Record, place: Place) -> Found:
    """The branch that was shown last; text taken out of an attached file stands before its message, as it was asked.

    Uses of tools are left out, and named; what one side says in a row then becomes one message.
    """
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
        role = ROLES.get(sender) if isinstance(sender, str) else None
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
    if not blocks and isinstance(row.get("text"), str):  # where there are blocks, it says of tools that they were used
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
