"""A tokenizer for streams of output: one id per letter, and an id for each added token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

FIRST_ADDED = 1_000_000


@dataclass(frozen=True)
class Added:
    content: str
    special: bool


class MarkedTokenizer:
    """`special` are erased by decoding, as transformers does; `added` are one token each, and text."""

    def __init__(self, special: tuple[str, ...] = (), added: tuple[str, ...] = (), template: str | dict[str, str] = ""):
        tokens = [*(Added(name, True) for name in special), *(Added(name, False) for name in added)]
        self.added_tokens_decoder = {FIRST_ADDED + number: token for number, token in enumerate(tokens)}
        self.all_special_tokens = list(special)
        self.chat_template = template
        self._ids = {token.content: number for number, token in self.added_tokens_decoder.items()}
        names = sorted(self._ids, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None

    def ids(self, text: str) -> list[int]:
        pieces = self._cut.split(text) if self._cut else [text]
        return [i for p in pieces for i in ([self._ids[p]] if p in self._ids else map(ord, p))]

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self._word(i) for i in ids)

    def _word(self, number: int) -> str:
        token = self.added_tokens_decoder.get(number)
        if token is None:
            return chr(number)
        return "" if token.special else token.content
