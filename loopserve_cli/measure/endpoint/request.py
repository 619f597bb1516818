"""What a server is asked: the dialogue so far, and how tokens are drawn, in the fields of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopserve_cli.config import SamplingOptions
from loopserve_cli.messages import Message

# OpenAI's interface has no such fields, vLLM, SGLang and llama.cpp read them: only what was asked for is sent.
BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty")


def request_of(
    model: str, messages: Sequence[Message], sampling: SamplingOptions, tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The body of the request, as JSON types. What was thought before an answer is not sent: no field takes it."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
    }
    usual = SamplingOptions()
    for name in ("top_p", "seed", *BEYOND_OPENAI):
        if (value := getattr(sampling, name)) != getattr(usual, name):
            body[name] = value
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if tools:
        body["tools"] = [dict(tool) for tool in tools]
    return body
