"""Control tokens: the added tokens that structure a prompt. Nobody who only writes text may write one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopserve_cli.template.plain import spell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a model thinks stands in its answer between tokens of such names, and templates look for them there.
REASONING = re.compile("think|thought|reason", re.IGNORECASE)
# What others say into an answer: of all that a template only mentions, no model writes these itself.
OTHERS = re.compile("respon|result|output|observ|system|user|human", re.IGNORECASE)
# Added tokens that are words or spaces are text; a control token is marked off: <...>, [...], |...|
MARKUP = re.compile(r"[^\w\s].*[^\w\s]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """A tokenizer's control tokens and their ids; `in_answers` are those that an answer may not hold either.

    Tokens that are special, or that the template writes around messages, make turns: they are in both. Of those that it
    only mentions, the ones of thinking and of tool calls are an answer's own.
    """

    ids: dict[str, int]
    in_answers: frozenset[str]

    def found(self, text: str, role: str) -> tuple[str, ...]:
        """Those that stand in what `role` said; one that stands only within a longer one counts as well."""
        if role == "assistant":
            return tuple(token for token in self.in_answers if token in text)
        return tuple(token for token in self.ids if token in text)


def control_tokens(tokenizer: PreTrainedTokenizerBase, source: str, written: Sequence[str]) -> ControlTokens:
    """The control tokens of a tokenizer whose template has the text `source` and wrote `written`."""
    named = set(tokenizer.all_special_tokens)
    special, around, mentioned = {}, {}, {}
    for number, token in tokenizer.added_tokens_decoder.items():
        text = token.content
        if not text.strip():
            continue
        if token.special or text in named:
            special[text] = number
        elif MARKUP.fullmatch(text) and _goes_with_messages(text, written):
            around[text] = number
        elif MARKUP.fullmatch(text) and any(text in each for each in (source, *written)):
            mentioned[text] = number
    text_too = {text for text in special if len(text) == 1 and spell(tokenizer, text, frozenset()) == [special[text]]}
    turns = {text: number for text, number in (special | around).items() if text not in text_too}
    others = [text for text in mentioned if OTHERS.search(text)]
    in_answers = frozenset(text for text in [*turns, *others] if not REASONING.search(text))
    return ControlTokens(turns | mentioned, in_answers)


def _goes_with_messages(text: str, written: Sequence[str]) -> bool:
    """Whether dialogues of other messages have it another number of times; of one dialogue, whether it has it."""
    counts = {each.count(text) for each in written}
    return len(counts) > 1 or (len(written) == 1 and counts != {0})
