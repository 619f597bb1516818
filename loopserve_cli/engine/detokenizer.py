"""Token ids to text, one at a time: whole characters, and the special tokens that mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"
# Stands before a special token's name in the text: half a character, which no decoded text holds, so that the token
# and the same letters written by the model cannot be taken for each other.
MARK = "\ud800"


class Detokenizer:
    """Tokens in, text out, holding back unfinished characters.

    Special tokens are erased, but for those of `marked`, which come out by name behind a MARK.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, marked: Mapping[int, str]) -> None:
        """`marked` are special tokens to keep: their names by id."""
        self._tokenizer = tokenizer
        self._marked = marked
        self._ids: list[int] = []
        self._context = self._read = 0

    @property
    def unfinished(self) -> bool:
        """Whether the last token's character goes on with the next one."""
        return self._read < len(self._ids)

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly empty."""
        name = self._marked.get(token)
        if name is not None:
            return self.flush() + MARK + name
        self._ids.append(token)
        # Decoding from a few tokens back keeps the spaces that tokenizers put between words.
        before = self._decode(self._ids[self._context : self._read])
        now = self._decode(self._ids[self._context :])
        if now.endswith(UNFINISHED):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def flush(self) -> str:
        """What was held back; the next token begins anew."""
        before = self._decode(self._ids[self._context : self._read])
        rest = self._decode(self._ids[self._context :])[len(before) :]
        self._ids = []
        self._context = self._read = 0
        return rest

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
