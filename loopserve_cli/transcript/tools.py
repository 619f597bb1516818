"""The functions that a model may call, as they stand beside a dialogue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loopserve_cli.transcript.place import Place, kind

Tools = tuple[Mapping[str, Any], ...]


def as_tools(value: Any, name: str, place: Place) -> Tools:
    """The functions in a list, or in JSON text that holds one; null, "", [] and {} are none.

    Each is an object or JSON text that holds one. A bare `{"name", "parameters"}` is put into the envelope
    that OpenAI writes and templates read.
    """
    value = _parsed(value, name, place)
    if value is None or value in ([], {}):
        return ()
    listed = value if isinstance(value, list) else [value]
    tools = []
    for tool in listed:
        tool = _parsed(tool, name, place)
        if not isinstance(tool, dict) or not tool:
            raise place.error(f"{name} must be a list of functions, but one of them is {kind(tool)}; mend or remove it")
        tools.append(_enveloped(tool))
    _check_text(tools, name, place)
    return tuple(tools)


def _parsed(value: Any, name: str, place: Place) -> Any:
    """The value, read as JSON where it is text; blank text is None."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise place.error(f"{name} is text that is not valid JSON; write a list of functions or remove it") from None


def _enveloped(tool: dict[str, Any]) -> dict[str, Any]:
    """A function in OpenAI's envelope."""
    bare = "function" not in tool and "type" not in tool and isinstance(tool.get("name"), str)
    return {"type": "function", "function": tool} if bare else tool


def _check_text(tools: list[dict[str, Any]], name: str, place: Place) -> None:
    """Raise unless a tokenizer can take all text in them."""
    try:
        json.dumps(tools, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise place.error(f"{name} holds half a character; remove it or write the whole pair") from None
    except RecursionError:
        raise place.error(f"{name} is nested too deeply; check that this is the right file") from None
