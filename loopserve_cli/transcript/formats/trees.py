"""Dialogues kept as trees: of the branches one is the dialogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.beside import dialogue
from loopserve_cli.transcript.formats.found import Found, Record, Rows
from loopserve_cli.transcript.formats.rows import joined, message_of
from loopserve_cli.transcript.ours import NEEDS
from loopserve_cli.transcript.place import Place, as_id, as_object, need, shown

TREE = "message_tree_id"


def branch_to(leaf: str, nodes: dict[str, Any], parent_of: Callable[[Record], Any], place: Place) -> list[Record]:
    """The nodes from the root down to `leaf`; raises where they go round in a circle."""
    branch: list[Record] = []
    name: str | None = leaf
    while name is not None and name in nodes:
        node = as_object(nodes[name], place, "every node of the tree is an object")
        branch.append(node)
        if len(branch) > len(nodes):
            raise place.error("its messages are each other's parents; export the dialogue again")
        name = as_id(parent_of(node))
    return branch[::-1]


def oasst_tree(record: Record, place: Place) -> Found:
    """OpenAssistant's trees (arXiv 2304.07327): at every message the reply that was ranked best, else the first."""
    node: Any = need(record, "prompt", place, "every record needs it")
    said: list[Message] = []
    while node is not None:
        where = place.within(f"message {len(said) + 1}")
        node = as_object(node, where, NEEDS)
        said.append(message_of({"role": node.get("role"), "content": node.get("text")}, where))
        node = _best(node.get("replies"))
    return dialogue({**record, "prompt": None}, joined(said, place), place, (TREE,))


def oasst_messages(rows: Rows) -> list[Found]:
    """OpenAssistant's flat layout: the messages of one tree, each with its parent's id, the prompt without."""
    children: dict[str, list[Record]] = {}
    roots: list[Record] = []
    names: set[str] = set()
    for place, row in rows:
        name = _number(row.get("message_id"))
        if name is None or name in names:
            raise place.error("message_id must name one message; remove what stands twice")
        names.add(name)
        node = {**row, "replies": children.setdefault(name, [])}
        parent = _number(row.get("parent_id"))
        (roots if parent is None else children.setdefault(parent, [])).append(node)
    place = rows[0][0]
    if not roots:
        raise place.error("no message of the tree is without parent_id; a tree begins with one")
    orphans = children.keys() - names
    if orphans:
        raise place.error(f"parent_id {shown(min(orphans))} names no message; add it, or remove what follows it")
    return [oasst_tree({TREE: rows[0][1].get(TREE), "prompt": roots[0]}, place)]


def tree_of(record: Record) -> str | None:
    """The tree that a message of the flat layout belongs to."""
    return as_id(record.get(TREE))


def is_oasst_tree(record: Record) -> bool:
    """Whether the record is a tree of messages."""
    prompt = record.get("prompt")
    return isinstance(prompt, dict) and (TREE in record or "replies" in prompt)


def _number(value: Any) -> str | None:
    """An id of the flat layout; a column with gaps makes floats of whole numbers."""
    return as_id(int(value) if isinstance(value, float) and value.is_integer() else value)


def _best(replies: Any) -> Any:
    """The best reply that was not deleted, or None."""
    if not isinstance(replies, list):
        return None
    kept = [reply for reply in replies if not (isinstance(reply, dict) and reply.get("deleted"))]
    return min(kept, key=_rank) if kept else None


def _rank(reply: Any) -> float:
    rank = reply.get("rank") if isinstance(reply, dict) else None
    return rank if isinstance(rank, int) and not isinstance(rank, bool) else float("inf")
