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
    read, and `decode` may watch; without it one token is decoded. Layers with a window that bites, with soft-capped
    scores or with learnt sinks are dense.
    """
    assert attention_mask is None, "one unpadded sequence needs no mask"
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window is not None and sliding_window < key.shape[2] else None
    plain = window is None and softcap is None and s_aux is None
    if plain and prefill is not None:
        if decode is not None and decode.watches:
            decode.observe(layer_of(module), query, key, scaling)
        out = prefill.attend(layer_of(module), query, key, value, scaling)
    elif plain and decode is not None:
        out = decode.attend(layer_of(module), query, key, value, scaling)
    elif plain:
        out = dense_attention(query, key, value, scaling)
    else:
        if prefill is not None:
            prefill.count_dense(layer_of(module), query, key)
        out = masked_attention(query, key, value, scaling, window, softcap, s_aux)
    return out.transpose(1, 2), None


def layer_of(module: nn.Module) -> int:
    """The layer's number, as every attention module that has a cache carries it."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return layer


def register() -> None:
    """Make the function known to transformers; doing it again changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, loopserve_attention)
