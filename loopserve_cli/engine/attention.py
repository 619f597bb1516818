"""The one attention function that models call, registered with transformers under the name "loopserve".

It is called after RoPE and after the store's `update`, so it sees all keys of the dialogue: query
[1, H, n, D], key and value [1, G, N, D]. No mask function is registered beside it: there is one sequence
and no padding, so transformers builds no mask, and causality is decided here alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_kernels.dense import dense_attention, masked_attention

# transformers treats names that contain "flash", "sdpa" or "flex_attention" in ways of their own.
ATTENTION_NAME = "loopserve"


def loopserve_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    prefill: PrefillTurn | None = None,
    decode: DecodeTurn | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; returns [1, n, H, D] as transformers expects it, and no weights.

    `prefill` and `decode` come from the engine through the model's keyword arguments: with `prefill` a prompt is
    read, and `decode` may watch; without it a step is decoded, and key and value are those of its token alone.
    Layers with a window that bites, with soft-capped scores or with learnt sinks are dense.
    """
    assert attention_mask is None, "one unpadded sequence needs no mask"
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = layer_of(module)
    if prefill is None and decode is not None:
        out = _step(decode, layer, query, key, value, scaling, sliding_window, softcap, s_aux)
    else:
        window = biting(sliding_window, key.shape[2])
        plain = window is None and softcap is None and s_aux is None
        if decode is not None:
            decode.captures &= sliding_window is None  # whether it bites changes with the length
            # A window counts positions, so the rows of its layer must all stay.
            whole = decode.freezes and sliding_window is not None
            if plain and value.shape[-1] == query.shape[-1] and not whole:
                decode.observe(layer, query, key, scaling)
            else:
                decode.leave(layer)
        if not plain:
            if prefill is not None:
                prefill.count_dense(layer, query, key)
            out = masked_attention(query, key, value, scaling, window, softcap, s_aux)
        elif prefill is not None:
            out = prefill.attend(layer, query, key, value, scaling)
        else:
            out = dense_attention(query, key, value, scaling)
    return out.transpose(1, 2), None


def _step(
    decode: DecodeTurn,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """One token's attention: under the turn's policy, or over everything where the layer needs more than that."""
    window = biting(sliding_window, decode.keys_in(layer))
    if window is None and softcap is None and sinks is None and decode.takes_part(layer):
        return decode.attend(layer, query, key, value)
    decode.leave(layer)
    keys, values = decode.everything(layer)
    return masked_attention(query, keys, values, scaling, window, softcap, sinks)


def biting(window: int | None, keys: int) -> int | None:
    """The sliding window, or None where it leaves nothing out."""
    return window if window is not None and window < keys else None


def layer_of(module: nn.Module) -> int:
    """The layer's number, as every attention module that has a cache carries it."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return layer


def register() -> None:
    """Make the function known to transformers; doing it again changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, loopserve_attention)
