"""One piece of a streamed answer, read from its JSON. What a server may send is looked at, not trusted.

Source: https://platform.openai.com/docs/api-reference/chat-streaming; reasoning stands in `reasoning_content`, as
vLLM, SGLang and llama.cpp write it, or in `reasoning`, as Ollama and newer vLLM do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopserve_cli.errors import EndpointError

REASONING = ("reasoning_content", "reasoning")
# How much of what a server said is shown.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counts them; None is not told."""

    prompt: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A part of the call of a function: the first part has its name, all of them some of its arguments."""

    index: int
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event adds to an answer. `at` is when it came, in the clock that the client is given."""

    at: float
    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish: str | None = None
    usage: Usage | None = None

    @property
    def holds_tokens(self) -> bool:
        """Whether the model said something in it; one that only names the role says nothing."""
        return bool(self.text or self.reasoning or self.calls)


def parse_chunk(data: str, at: float) -> Chunk:
    """The chunk that an event's data is; raises EndpointError for an error, and for what is no chunk."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise EndpointError(f"the server sent what is no JSON: {brief(data)}") from None
    if isinstance(value, dict) and value.get("error"):
        raise EndpointError(f"the server says: {error_text(value)}")
    try:
        return _chunk(value, at)
    except (TypeError, AttributeError, ValueError, IndexError, KeyError):
        raise EndpointError(f"the server sent what is no part of an answer: {brief(data)}") from None


def _chunk(value: Any, at: float) -> Chunk:
    choices = value.get("choices") or []
    usage = usage_of(value.get("usage"))
    if not choices:
        return Chunk(at, usage=usage)
    choice = choices[0]
    delta = choice.get("delta") or {}
    reasoning = next((_text(delta[name]) for name in REASONING if delta.get(name)), "")
    finish = _text(choice.get("finish_reason")) or None
    calls = tuple(_call(call, place) for place, call in enumerate(delta.get("tool_calls") or []))
    return Chunk(at, _text(delta.get("content")), reasoning, calls, finish, usage)


def _call(value: Any, place: int) -> Call:
    function = value.get("function") or {}
    return Call(int(value.get("index", place)), _text(function.get("name")), _text(function.get("arguments")))


def _text(value: Any) -> str:
    """Text, which half a character is not; nothing is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError
    return value.encode("utf-8", "replace").decode()


def usage_of(value: Any) -> Usage | None:
    """What a server counted; None where it did not, and for a number that is none."""
    if not isinstance(value, Mapping):
        return None
    prompt_details, output_details = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    return Usage(
        _count(value, "prompt_tokens"),
        _count(value, "completion_tokens"),
        _count(prompt_details, "cached_tokens"),
        _count(output_details, "reasoning_tokens"),
    )


def _count(value: Any, name: str) -> int | None:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**53 else None


def error_text(value: Any) -> str:
    """An error as servers write it, {"error": {"message"}}, {"error": text}, {"message"} or {"detail"}, in one line."""
    for name in ("error", "message", "detail"):
        if isinstance(value, Mapping) and value.get(name):
            value = value[name]
    return brief(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def brief(text: str) -> str:
    """The start of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
