"""Which models fit into a given memory, and with how long a dialogue: arithmetic on their shapes."""

from __future__ import annotations

from dataclasses import dataclass

from loopserve_cli.shapes import BF16_BYTES, HEADROOM, SHAPES, Shape

# 4 bits a weight, and a 32-bit scale for every 64 of them.
NF4_BYTES = 0.5 + 4 / 64


@dataclass(frozen=True, slots=True)
class Fit:
    """One row of "what fits". A context of None means that the weights alone are too large."""

    model: str
    kv_bytes_per_1k_tokens: int
    bf16_weight_bytes: int
    bf16_context_tokens: int | None
    nf4_weight_bytes: int
    nf4_context_tokens: int | None


def fits(memory: int) -> list[Fit]:
    """Every known shape against `memory` bytes."""
    return [
        Fit(
            model=shape.model,
            kv_bytes_per_1k_tokens=1000 * shape.kv_bytes_per_token,
            bf16_weight_bytes=shape.weight_bytes(BF16_BYTES),
            bf16_context_tokens=shape.context_in(memory, BF16_BYTES),
            nf4_weight_bytes=shape.weight_bytes(NF4_BYTES),
            nf4_context_tokens=shape.context_in(memory, NF4_BYTES),
        )
        for shape in SHAPES
    ]


__all__ = ["BF16_BYTES", "HEADROOM", "NF4_BYTES", "SHAPES", "Fit", "Shape", "fits"]
