"""Which template a tokenizer means: most have one, some have several by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopserve_cli.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT = "default"
WITH_TOOLS = "tool_use"


def source_of(tokenizer: PreTrainedTokenizerBase, tools: bool) -> str:
    """The template's text, chosen as transformers' `get_chat_template` does; raises UsageError when there is none."""
    given = tokenizer.chat_template
    if not given:
        raise UsageError("this model's tokenizer has no chat template; use an instruct or chat model")
    if isinstance(given, str):
        return given
    named = dict(given) if isinstance(given, dict) else {one["name"]: one["template"] for one in given}
    for name in (WITH_TOOLS, DEFAULT) if tools else (DEFAULT,):
        if name in named:
            return str(named[name])
    names = ", ".join(sorted(named))
    raise UsageError(
        f"this model's tokenizer has several chat templates, and none is the default: {names}; "
        f"name one of them {DEFAULT!r} in the model's folder"
    )
