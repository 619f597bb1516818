"""A dialogue as a Markdown document, for people to read elsewhere."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from loopserve_cli.chat.figures import thought_line
from loopserve_cli.chat.markdown import markdown_parser
from loopserve_cli.messages import Message

NAMES = {"system": "System prompt", "user": "You"}


def as_markdown(messages: Iterable[Message], model: str, profile: str, date: str) -> str:
    """The whole dialogue, each message under who said it; `date` is when it began, ISO 8601.

    What was said stands as it is, a code block that was left open is closed, and thoughts are folded away.
    """
    day, _, time = date.partition("T")
    parts = [f"# A dialogue with {model}", f"{day} {time[:5]}".rstrip() + f", profile {profile}"]
    for message in messages:
        parts.append(f"## {NAMES.get(message.role, model)}")
        if message.reasoning:
            tokens = None if message.record is None else message.record.tokens_reasoning
            summary = f"<summary>{html.escape(thought_line(tokens))}</summary>"
            parts.append(f"<details>{summary}\n\n{closed(message.reasoning)}\n\n</details>")
        parts.append(closed(message.content) or "*(no answer)*")
        if message.partial:
            parts.append("*[stopped]*")
    return "\n\n".join(parts) + "\n"


def closed(text: str) -> str:
    """The text without blank ends, and a code block that runs to the end closed, for more follows."""
    text = text.strip("\n").rstrip()
    tokens = markdown_parser().parse(text)
    last = tokens[-1] if tokens else None
    if last is None or last.type != "fence" or last.map is None:
        return text
    lines = text.splitlines()[last.map[0] :]
    ends = re.fullmatch(rf" {{0,3}}{re.escape(last.markup[0])}{{{len(last.markup)},}}\s*", lines[-1])
    return text if len(lines) > 1 and ends else f"{text}\n{last.markup}"
