"""A control token's text as a tokenizer spells it when it takes it for text."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some tokenizers put a space before the first word of what they are given. After a line's end they do not.
BEFORE = "\n"


def spell(tokenizer: PreTrainedTokenizerBase, text: str, control_ids: Collection[int]) -> list[int]:
    """The ids of `text` without added tokens and, if it can be helped, without any of `control_ids`.

    As the tokenizer cuts it; letter by letter where its vocabulary has a control token as a word.
    """
    ids = _within(tokenizer, text)
    if not any(number in control_ids for number in ids):
        return ids
    return [number for letter in text for number in _within(tokenizer, letter)]


def _within(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of text that does not begin what is tokenised."""
    before, ids = _encode(tokenizer, BEFORE), _encode(tokenizer, BEFORE + text)
    return ids[len(before) :] if ids[: len(before)] == before else _encode(tokenizer, text)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """All steps of the tokenizer but the first, which looks for added tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
    normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    words = [normal]
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
    return [token.id for word in words for token in backend.model.tokenize(word)]
