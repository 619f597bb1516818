"""Whether what was said reaches the prompt: a template may write a message, trimmed; it may not leave it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.template.rows import Row

SHOWN = 40


def check_reach(rows: Sequence[Row], written: str) -> None:
    """Raise UsageError unless the users' words stand in `written` in their order, and the system prompt anywhere.

    Answers are not looked for: templates drop what was thought in old ones.
    """
    place = 0
    for row in rows:
        if row["role"] != "user":
            continue
        words = row["content"].strip()
        found = written.find(words, place)
        if found < 0:
            raise UsageError(
                f"the model's chat template leaves out or changes what was said ({_brief(words)}), "
                "so the model would not be asked that; mend it in the model's folder, or use another model"
            )
        place = found + len(words)
    if any(row["role"] == "system" and row["content"].strip() not in written for row in rows):
        raise UsageError(
            "the model's chat template has no place for a system prompt, and leaves it out; "
            "take it away, or say it in the first message"
        )


def tools_left_out(tools: Sequence[Any], written: str) -> list[str]:
    """The names of the tools that do not stand in what the template wrote."""
    return [name for name in map(_name, tools) if name not in written]


def _name(tool: Any) -> str:
    inner = tool.get("function", tool)
    return str(inner.get("name", "")) if isinstance(inner, dict) else ""


def _brief(words: str) -> str:
    line = " ".join(words.split())
    return repr(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")
