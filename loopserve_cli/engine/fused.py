"""A model's forward pass through fused kernels, over the model's own weights: ten launches a layer and decode step.

A layer of transformers' code is some forty launches, most of them for a few thousand numbers. Here it is

    addition and norm | queries, keys, values | rotation and all writes | attention, its merge | output product
    addition and norm | gate and up | silu(gate) up | down product

A prompt goes the same way, but that its keys go through the store and its attention through the turn's policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from loopserve_cli.engine.attention import layer_of, loopserve_attention
from loopserve_cli.engine.fused_parts import LayerParts, ModelParts
from loopserve_kernels.gated import silu_mul
from loopserve_kernels.norm import add_rms_norm
from loopserve_kernels.rotate import rotate
from loopserve_kernels.rotation import Rotation

if TYPE_CHECKING:
    from loopserve_cli.engine.decoding import DecodeTurn
    from loopserve_cli.engine.store import Store
    from loopserve_cli.policies.prefill import PrefillTurn


class FusedModel:
    """One model's parts, run as `model_call.next_logits` runs a model of transformers."""

    def __init__(self, parts: ModelParts) -> None:
        """Nothing is copied."""
        self.parts = parts

    def next_logits(
        self,
        ids: Tensor,
        positions: Tensor,
        store: Store,
        prefill: PrefillTurn | None = None,
        decode: DecodeTurn | None = None,
    ) -> Tensor:
        """Run ids [1, n] at their positions [1, n]; the logits of the last, [1, V]. The store has taken in all n."""
        parts = self.parts
        stream: Tensor = parts.embedding(ids)[0]
        cos, sin = parts.rotary(stream[None], positions)
        delta = None
        for layer in parts.layers:
            stream, x = add_rms_norm(stream, delta, layer.before.weight, layer.before.eps)
            rotation = Rotation(cos[0], sin[0], *_head_norms(layer))
            attended = self._attend(layer, x, rotation, store, prefill, decode)
            stream, x = add_rms_norm(stream, layer.output(attended), layer.after.weight, layer.after.eps)
            delta = _feed(layer, x)
        last = None if delta is None else delta[-1:]
        logits: Tensor = parts.head(add_rms_norm(stream[-1:], last, parts.norm.weight, parts.norm.eps)[1])
        return logits

    def _attend(
        self,
        layer: LayerParts,
        x: Tensor,
        rotation: Rotation,
        store: Store,
        prefill: PrefillTurn | None,
        decode: DecodeTurn | None,
    ) -> Tensor:
        """Attention of rows [n, C] before its output product, [n, H * D]."""
        number = layer_of(layer.attention)
        query, key, value = (part.unflatten(1, (-1, layer.size)) for part in layer.heads(x))
        if prefill is None and decode is not None and decode.takes_part(number):
            return decode.attend_row(number, query[0], key[0], value[0], rotation).flatten()[None]
        query, key = rotate(query, key, rotation)
        keys, values = store.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], number)
        out, _ = loopserve_attention(
            layer.attention, query.transpose(0, 1)[None], keys, values, None,
            getattr(layer.attention, "scaling", None), prefill=prefill, decode=decode,
        )  # fmt: skip
        return out[0].flatten(1)


def _head_norms(layer: LayerParts) -> tuple[Tensor | None, Tensor | None, float]:
    if layer.query_norm is None or layer.key_norm is None:
        return None, None, 0.0
    return layer.query_norm.weight, layer.key_norm.weight, layer.query_norm.eps


def _feed(layer: LayerParts, x: Tensor) -> Tensor:
    """The feed-forward part, [n, C]; through the model's own code where its gate is another one."""
    if layer.gate_up is None:
        out: Tensor = layer.feed(x[None])[0]
        return out
    fed: Tensor = layer.feed.down_proj(silu_mul(*layer.gate_up(x)))  # type: ignore[operator]
    return fed
