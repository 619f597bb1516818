"""Giving a model's earlier thoughts back to its chat template, in the form that the template reads."""

from __future__ import annotations

import re
from typing import Any

# As templates read them from a message: message.thinking, message['thinking'], message.get("thinking").
NAMES = ("reasoning_content", "reasoning", "thinking", "thought")
PARTS = re.compile(r"""\[?['"]?type['"]?\]?\s*==\s*['"]thinking['"]""")
AS_PARTS = "content parts"


def reasoning_field(template: str) -> str | None:
    """The name under which a template reads what an assistant thought; None where it reads no thoughts.

    AS_PARTS where it wants them as a part of the content, as Magistral's does.
    """
    for name in NAMES:
        if name == "thinking" and PARTS.search(template):
            return AS_PARTS
        if re.search(rf"""(?<=[\w\])])\.{name}\b|['"]{name}['"]""", template):
            return name
    return None


def with_reasoning(row: dict[str, Any], reasoning: str | None, field: str | None) -> dict[str, Any]:
    """The row of an assistant's message with what it thought; without a field, as model cards ask, without it."""
    if reasoning is None or field is None:
        return row
    if field != AS_PARTS:
        return {**row, field: reasoning}
    content = row["content"]
    rest = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return {**row, "content": [{"type": "thinking", "thinking": reasoning}, *rest]}
