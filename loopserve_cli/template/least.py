"""How few tokens a text can be, told from its length: what cannot fit is refused before it is tokenised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A letter that composition makes has at most four code points when taken apart (Unicode Standard Annex 15).
COMPOSED = 4
COMPOSING = ("NFC", "NFKC")
# Steps that leave no letter out, and do not make one of several.
KEEPING = ("NFD", "NFKD", "Prepend", "Lowercase", "ByteLevel", "Metaspace", "Digits", "Split", "Punctuation")
BYTES = 256


@dataclass(frozen=True, slots=True)
class Least:
    """The most characters that one token stands for, and whether spaces may go without one."""

    widest: int
    spaces_go: bool

    def tokens(self, length: int) -> int:
        """The fewest tokens of so many characters."""
        return -(-length // self.widest)

    def of(self, text: str) -> int:
        """The fewest tokens of a text; templates may trim it, so the spaces around it do not count."""
        return self.tokens(len("".join(text.split())) if self.spaces_go else len(text.strip()))


def least_of(tokenizer: PreTrainedTokenizerBase) -> Least | None:
    """The bound for a tokenizer; None where there is none that is never wrong.

    That is where letters are dropped (an unknown one, or by the normaliser or the cutting into words), or where one
    token stands for a whole unknown word.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE":
        return None
    steps = [*_steps(backend.normalizer), *_steps(backend.pre_tokenizer)]
    names = [step["type"] for step in steps]
    if not all(_keeps(step) for step in steps) or not _knows_every_byte(backend, names):
        return None
    added = list(tokenizer.added_tokens_decoder.values())
    widest = max(map(len, [*backend.get_vocab(True), *(token.content for token in added)]), default=1)
    composed = COMPOSED if any(name in COMPOSING for name in names) else 1
    return Least(max(widest, 1) * composed, any(token.lstrip or token.rstrip for token in added))


def _steps(part: Any) -> list[dict[str, Any]]:
    """What a normaliser or pre-tokenizer does, one after the other; one that cannot be looked into is unknown."""
    if part is None:
        return []
    try:
        return _flat(json.loads(part.__getstate__()))
    except Exception:  # one written in Python, which the library refuses to tell of in its own ways
        return [{"type": "unknown"}]


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    inner = step.get("normalizers") or step.get("pretokenizers")
    return [one for part in inner for one in _flat(part)] if step["type"] == "Sequence" and inner else [step]


def _keeps(step: dict[str, Any]) -> bool:
    """Whether a step leaves every letter in, composition aside."""
    if step["type"] == "Replace":
        pattern = step["pattern"].get("String")
        return pattern is not None and len(step["content"]) >= len(pattern)
    if step["type"] == "Split" or step["type"] == "Punctuation":
        return step["behavior"] != "Removed"
    return step["type"] in KEEPING or step["type"] in COMPOSING


def _knows_every_byte(backend: Any, names: list[str]) -> bool:
    """Whether no letter is unknown: unknown ones are dropped, or several become one token."""
    vocabulary = backend.get_vocab(False)
    if "ByteLevel" in names:
        from tokenizers.pre_tokenizers import ByteLevel

        return all(letter in vocabulary for letter in ByteLevel.alphabet())
    return bool(backend.model.byte_fallback) and all(f"<0x{byte:02X}>" in vocabulary for byte in range(BYTES))
