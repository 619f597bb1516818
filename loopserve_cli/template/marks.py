"""Private characters in place of control tokens that somebody said, while a template writes.

What the template itself writes as a token is then told from what was pasted, and a template that looks for its own
tokens in a message does not find them there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# A plane of characters that no text is written in.
FIRST, LAST = 0xF0000, 0xFFFFD
PRIVATE = re.compile(f"[{chr(FIRST)}-{chr(LAST)}]")


@dataclass(frozen=True, slots=True)
class Span:
    """Text as the template wrote it, after a control token's text that somebody said; the first has none before it."""

    said: str
    text: str


@dataclass(frozen=True, slots=True)
class Marks:
    """By control token, the character that stands for it."""

    by_token: dict[str, str]

    @classmethod
    def of(cls, tokens: Iterable[str], texts: Iterable[str]) -> Marks:
        """Characters that stand nowhere in `texts`."""
        wanted = sorted(tokens, key=lambda token: (-len(token), token))
        taken = {letter for text in texts for letter in PRIVATE.findall(text)} if wanted else set()
        free = (letter for letter in map(chr, range(FIRST, LAST + 1)) if letter not in taken)
        return cls(dict(zip(wanted, free, strict=False)))

    def put(self, value: Any, tokens: Iterable[str]) -> Any:
        """JSON data with every occurrence of `tokens` marked, in keys as well; a longer token goes before its parts."""
        longest = sorted(tokens, key=len, reverse=True)
        if not longest:
            return value
        return self._put(value, re.compile("|".join(map(re.escape, longest))))

    def _put(self, value: Any, pattern: re.Pattern[str]) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda found: self.by_token[found[0]], value)
        if isinstance(value, dict):
            return {self._put(key, pattern): self._put(item, pattern) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._put(item, pattern) for item in value]
        return value

    def spans(self, written: str) -> list[Span]:
        """What the template wrote, cut at the marks."""
        if not self.by_token:
            return [Span("", written)]
        token_of = {mark: token for token, mark in self.by_token.items()}
        first, *rest = re.split(f"([{''.join(token_of)}])", written)
        after = [Span(token_of[mark], text) for mark, text in zip(rest[::2], rest[1::2], strict=True)]
        return [Span("", first), *after]


def strings(value: Any) -> Iterator[str]:
    """Every text in JSON data, keys as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def text_of(spans: Iterable[Span]) -> str:
    """The spans as one text, with the tokens in their places again."""
    return "".join(span.said + span.text for span in spans)
