"""Models whose rotary positions depend on how long the whole sequence is, so that older keys go stale.

Longrope (Phi-3, arXiv 2404.14219) has two sets of factors: one while the sequence has at most
`original_max_position_embeddings` tokens, another, for all positions, as soon as it is longer. transformers'
`generate` throws its cache away at that point and reads everything again; so does the engine, and it does the same
on the way back. Dynamic NTK scaling takes its base from the length of whatever is read at once, so that beyond the
trained length only a prompt that is read in one piece has the keys that transformers would give it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class LengthDependence:
    """Up to `original` tokens positions are as trained; beyond in another way, with `every_length` one for each length.

    What a store holds of at most `original` tokens is always as trained.
    """

    original: int
    every_length: bool

    def stale(self, held: int, total: int) -> bool:
        """Whether so many held tokens must be read again in a prompt that makes them `total`."""
        return held > 0 and total > self.original and (self.every_length or held <= self.original)

    def stale_in_step(self, held: int) -> bool:
        """Whether a decode step after so many tokens makes them stale; `generate` lets dynamic scaling pass."""
        return not self.every_length and held == self.original

    def kept(self, held: int, length: int) -> int:
        """How many of so many held tokens are good after going back to `length`: all of those, or none."""
        return 0 if length <= self.original < held else length

    def at_once(self, total: int) -> int:
        """How many of a sequence's first tokens must be read at once, so that the model sees how long it is."""
        if total <= self.original:
            return 0
        return total if self.every_length else self.original + 1


def length_dependence(config: PreTrainedConfig) -> LengthDependence | None:
    """How a model's positions depend on the length; None where they do not."""
    text = config.get_text_config()
    rope: Any = getattr(text, "rope_parameters", None) or {}
    for part in (rope, *(v for v in rope.values() if isinstance(v, dict))):  # one for all layers, or one a kind
        kind = part.get("rope_type")
        if kind in ("longrope", "dynamic"):
            trained = text.max_position_embeddings
            if kind == "longrope":
                trained = part.get("original_max_position_embeddings", trained)
            return LengthDependence(int(trained), every_length=kind == "dynamic")
    return None


def forget_longest(model: PreTrainedModel) -> None:
    """Let dynamic scaling begin anew with a longer sequence than it was trained for.

    transformers keeps the base of the longest sequence that it has seen, until one is as short as those it was trained
    on.
    """
    for module in model.modules():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "original_max_seq_len"):
            module.max_seq_len_cached = module.original_max_seq_len
