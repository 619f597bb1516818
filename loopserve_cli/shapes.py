"""Sizes of known decoders: arithmetic on memory needs no more, and a model of random weights is made from them."""

from __future__ import annotations

from dataclasses import dataclass

from loopserve_cli.errors import UsageError
from loopserve_cli.nearest import hint

# Kept free for activations, the allocator and other programs.
HEADROOM = 0.10
BF16_BYTES = 2.0
# "--model random:NAME" is a model of that shape with random weights.
RANDOM = "random:"


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder. `tied` says that the output layer shares the embedding's weights.

    `kind` is the architecture as transformers names it, `rope_base` the base of its rotary positions.
    """

    model: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    context: int
    kind: str = "llama"
    rope_base: float = 5e5

    @property
    def linear_parameters(self) -> int:
        """Weights of the layers' matrix products, which quantisation shrinks."""
        attention = self.width * self.head_size * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.feed_forward)

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding and the output layer, which stay in 16 bits."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token adds in bf16: 4 G D L."""
        return 4 * self.kv_heads * self.head_size * self.layers

    def weight_bytes(self, bytes_per_weight: float) -> int:
        """Bytes of all weights, with the layers' own at `bytes_per_weight`."""
        return int(self.linear_parameters * bytes_per_weight + self.embedding_parameters * BF16_BYTES)

    def context_in(self, memory: int, bytes_per_weight: float) -> int | None:
        """Tokens of dialogue that fit beside the weights, at most the model's context; None if the weights do not."""
        room = memory * (1 - HEADROOM) - self.weight_bytes(bytes_per_weight)
        return None if room <= 0 else min(int(room / self.kv_bytes_per_token), self.context)


SHAPES = (
    Shape("Llama-3.2-1B", 16, 2048, 8192, 32, 8, 64, 128256, tied=True, context=131072),
    Shape("Llama-3.2-3B", 28, 3072, 8192, 24, 8, 128, 128256, tied=True, context=131072),
    Shape("Qwen2.5-7B", 28, 3584, 18944, 28, 4, 128, 152064, tied=False, context=32768, kind="qwen2", rope_base=1e6),
    Shape("Llama-3.1-8B", 32, 4096, 14336, 32, 8, 128, 128256, tied=False, context=131072),
    Shape("Qwen2.5-14B", 48, 5120, 13824, 40, 8, 128, 152064, tied=False, context=32768, kind="qwen2", rope_base=1e6),
)


def random_shape(model: str) -> Shape | None:
    """The shape that "random:NAME" names, in any case; None where the model is no random one.

    Raises UsageError for a shape that is not known.
    """
    if not model.casefold().startswith(RANDOM):
        return None
    name = model[len(RANDOM) :]
    for shape in SHAPES:
        if shape.model.casefold() == name.casefold():
            return shape
    known = [shape.model for shape in SHAPES]
    listed = f"no shape {name!r} to make a random model of; --model {RANDOM}NAME knows {', '.join(known)}"
    raise UsageError(listed + hint(name, known))
