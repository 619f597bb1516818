"""The one attention function that models call, registered with transformers under the name "loopserve".

It is called after RoPE and after the store's `update`, so it sees all keys of the dialogue: query
[1, H, n, D], key and value [1, G, N, D]. There is one sequence and no padding, so causality is decided here alone,
lower-right aligned; what a model masks beyond that comes as `masks` tells it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.handover import Witness
from loopserve_cli.engine.masks import told_mask, whole_mask, window_of
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_kernels.dense import dense_attention, masked_attention

# transformers treats names that contain "flash", "sdpa" or "flex_attention" in ways of their own.
ATTENTION_NAME = "loopserve"
# The same function with every mask in memory, for models that compute with theirs.
MASKED_NAME = "loopserve_masked"


def loopserve_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    prefill: PrefillTurn | None = None,
    decode: DecodeTurn | None = None,
    witness: Witness | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; returns [1, n, H, D] as transformers expects it, and no weights.

    `prefill` and `decode` come from the engine through the model's keyword arguments: with `prefill` a prompt is
    read, and `decode` may watch; without it a step is decoded, and key and value are those of its token alone, or
    all of them where the layer's `Handover` says so. Layers with a mask that bites, with soft-capped scores or with
    learnt sinks are dense.
    """
    if witness is not None:
        witness.handed(layer_of(module), key, value, attention_mask, kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = layer_of(module)
    window = window_of(attention_mask)
    mask = attention_mask if window is None else None
    further = Further(window, softcap, s_aux, mask)
    if prefill is None and decode is not None and decode.store.stepping:
        out = _step(decode, layer, query, key, value, scaling, further)
    else:
        out = _prompt(prefill, decode, layer, query, key, value, scaling, further)
        if prefill is not None:
            prefill.after_layer()
    return out.transpose(1, 2).contiguous(), None  # some models view it as it is


class Further(NamedTuple):
    """What a layer's attention has beside queries, keys and values."""

    window: int | None
    softcap: float | None
    sinks: Tensor | None
    mask: Tensor | None

    def bites(self, keys: int) -> bool:
        """Whether it changes attention over so many keys."""
        windowed = self.window is not None and self.window < keys
        return windowed or self.mask is not None or self.softcap is not None or self.sinks is not None


def _prompt(
    prefill: PrefillTurn | None,
    decode: DecodeTurn | None,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    further: Further,
) -> Tensor:
    """Attention of a prompt's new rows; the turn's decoding sees the layer if it can take part in it."""
    bites = further.bites(key.shape[2])
    if decode is not None:
        decode.captures &= further.window is None  # whether it bites changes with the length
        # A window counts positions, so the rows of its layer must all stay.
        stays = decode.freezes and further.window is not None
        foreign = layer in decode.store.handover.foreign
        if bites or foreign or stays or value.shape[-1] != query.shape[-1]:
            decode.leave(layer)
        else:
            decode.observe(layer, query, key, scaling)
    if bites:
        if prefill is not None:
            prefill.count_dense(layer, query, key)
            with prefill.attending(query.device):
                return masked_attention(query, key, value, scaling, *further)
        return masked_attention(query, key, value, scaling, *further)
    if prefill is not None:
        return prefill.attend(layer, query, key, value, scaling)
    return dense_attention(query, key, value, scaling)


def _step(
    decode: DecodeTurn, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, further: Further
) -> Tensor:
    """One token's attention: under the turn's policy, or over everything where the layer needs more than that."""
    handover = decode.store.handover
    if layer in handover.foreign:
        return masked_attention(query, key, value, scaling, *further)
    if decode.takes_part(layer) and not further.bites(decode.keys_in(layer)):
        return decode.attend(layer, query, key[:, :, -1:], value[:, :, -1:])
    decode.leave(layer)
    if layer in handover.whole:
        keys, values = key, value
    else:
        decode.write(layer, key, value)
        keys, values = decode.everything(layer)
    return masked_attention(query, keys, values, scaling, *further)


def layer_of(module: nn.Module) -> int:
    """The layer's number, as every attention module that has a cache carries it."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return layer


def register() -> None:
    """Make the function known to transformers, with its masks; doing it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, mask in {ATTENTION_NAME: told_mask, MASKED_NAME: whole_mask}.items():
        AttentionInterface.register(name, loopserve_attention)
        AttentionMaskInterface.register(name, mask)
