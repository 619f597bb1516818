"""A tokenizer's chat template: messages in, the token ids that the model was trained to read out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from loopserve_cli.engine.markup import template_text
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.reasoning_field import reasoning_field, with_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Template:
    """A tokenizer's chat template, rendered to ids; what was tokenised once is not tokenised again.

    The rendered text is cut before every special token. No token spans such a cut, so each piece has
    the same ids wherever it stands, and the pieces of old turns come from a table.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises UsageError when the tokenizer has no chat template."""
        if not tokenizer.chat_template:
            raise UsageError("this model's tokenizer has no chat template; use an instruct or chat model")
        self.tokenizer = tokenizer
        self._reasoning_field = reasoning_field(template_text(tokenizer))
        special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        specials = sorted(special | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._cut = re.compile("(?=" + "|".join(map(re.escape, specials)) + ")") if specials else None
        self._ids: dict[str, list[int]] = {}

    def text(self, messages: list[Message], generation_prompt: bool) -> str:
        """The dialogue as the template writes it; raises UsageError when the template refuses it."""
        from jinja2 import TemplateError

        rows = [with_reasoning(row_of(m), m.reasoning, self._reasoning_field) for m in messages]
        try:
            rendered = self.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=generation_prompt)
        except TemplateError as error:
            raise UsageError(f"the model's chat template refuses this dialogue: {error}") from None
        return str(rendered)

    def ids(self, messages: list[Message], generation_prompt: bool) -> list[int]:
        """The token ids of the whole dialogue."""
        text = self.text(messages, generation_prompt)
        pieces = [piece for piece in self._cut.split(text) if piece] if self._cut else [text]
        fresh: dict[str, list[int]] = {}
        ids: list[int] = []
        for piece in pieces:
            known = self._ids.get(piece)
            if known is None:
                known = self.tokenizer(piece, add_special_tokens=False).input_ids
            fresh[piece] = known
            ids += known
        self._ids = fresh
        return ids


def row_of(message: Message) -> dict[str, Any]:
    """A message as templates read it."""
    return {"role": message.role, "content": message.content}
