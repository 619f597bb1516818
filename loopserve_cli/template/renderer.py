"""Renders rows with a model's template. A template is a program: whatever it raises becomes one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from loopserve_cli.errors import UsageError
from loopserve_cli.template.clock import ASKED_BY, MACRO, TABLE, table
from loopserve_cli.template.rows import Row
from loopserve_cli.template.source import source_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Renderer:
    """A tokenizer's template; the date it writes is the one it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Mapping[str, Any]], date: datetime) -> None:
        """Raises UsageError when the tokenizer has no template, or several and no default."""
        self.tokenizer = tokenizer
        self.tools = [dict(tool) for tool in tools]
        self.source = source_of(tokenizer, bool(tools))
        self._given: dict[str, Any] = {}
        if ASKED_BY in self.source:
            self._given = {"chat_template": MACRO + self.source, TABLE: table(date)}
        elif not isinstance(tokenizer.chat_template, str):
            self._given = {"chat_template": self.source}

    def __call__(self, rows: list[Row], generation_prompt: bool, tools: Sequence[Row] | None = None) -> str:
        """The text that the template makes of the rows; `tools` in place of its own.

        Raises UsageError when the template refuses them, or fails in any other way.
        """
        from jinja2 import TemplateError

        given = self.tools if tools is None else tools
        try:
            return self._render(rows, generation_prompt, {"tools": given} if given else {})
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".")
            if type(error) is TemplateError:
                raise UsageError(
                    f"the model's chat template refuses this dialogue: {reason or 'it says not why'}"
                ) from None
            if not given and self._renders(rows, generation_prompt, {"tools": []}):
                raise UsageError(
                    f"the model's chat template fails in a dialogue without tools: {reason}; "
                    "give it tools, or use a model whose template needs none"
                ) from None
            said = [reason] if isinstance(error, TemplateError) else [type(error).__name__, reason]
            raise UsageError(
                f"the model's chat template fails: {': '.join(filter(None, said))}; "
                "mend it in the model's folder, or use another model"
            ) from None

    def _render(self, rows: list[Row], generation_prompt: bool, more: Mapping[str, Any]) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                rows, tokenize=False, add_generation_prompt=generation_prompt, **self._given, **more
            )
        )

    def _renders(self, rows: list[Row], generation_prompt: bool, more: Mapping[str, Any]) -> bool:
        try:
            self._render(rows, generation_prompt, more)
        except Exception:
            return False
        return True
