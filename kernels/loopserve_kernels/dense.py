"""Dense attention of new rows over a longer history: causal from the lower right, never repeating keys.

Row i of n new rows over N keys sees keys 0 .. N - n + i. SDPA's own `is_causal` is aligned to the upper
left and would hide the history from a follow-up turn, so it is used only where both agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.device import on_gpu
from loopserve_kernels.lower_right import lower_right
from loopserve_kernels.merge import merge

ROWS_AT_ONCE = 512


def dense_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention, lower-right aligned.

    query [B, H, n, D], key and value [B, G, N, D] with H a multiple of G and n <= N; returns [B, H, n, D].
    On a CPU the history and the new part are computed apart and merged by their log-sum-exp, which needs
    no [n, N] mask; for a GPU see `dense_gpu`.
    """
    batch, heads, rows, size = query.shape
    groups, keys = key.shape[1], key.shape[2]
    assert heads % groups == 0 and rows <= keys
    if rows == 1:
        packed = query.reshape(batch, groups, heads // groups, size)
        return F.scaled_dot_product_attention(packed, key, value, scale=scaling).reshape(batch, heads, 1, -1)
    if on_gpu(query):
        from loopserve_kernels.dense_gpu import dense_gpu

        return dense_gpu(query, key, value, scaling)
    if rows == keys or value.shape[-1] != size:
        return lower_right(query, key, value, scaling, heads != groups)
    return _history_and_own(query, key, value, scaling)


def _history_and_own(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """The CPU path: all of the history for every row, then the causal part among the new rows."""
    batch, heads, rows, size = query.shape
    groups = key.shape[1]
    history = key.shape[2] - rows
    # One key head's query heads become further rows, so that each key is read once for its whole group.
    packed = query.reshape(batch, groups, heads // groups * rows, size)
    old, old_lse = _flash_cpu(packed, key[:, :, :history], value[:, :, :history], False, scaling)
    own_key = key[:, :, history:].repeat_interleave(heads // groups, dim=1)
    own_value = value[:, :, history:].repeat_interleave(heads // groups, dim=1)
    own, own_lse = _flash_cpu(query, own_key, own_value, True, scaling)
    old = old.reshape(batch, heads, rows, size)
    return merge(old, old_lse.reshape(batch, heads, rows), own, own_lse)


def _flash_cpu(query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """SDPA's CPU kernel with its log-sum-exp: output [B, H, n, D] and lse [B, H, n] in fp32."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scaling)
    return out, lse


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Dense attention with what no fast kernel has: a sliding window, a mask, soft-capped scores, attention sinks.

    Shapes as in `dense_attention`; sinks [H] are extra logits that take mass and give no value. Row p sees
    keys p - window + 1 .. p. A mask [1, 1 or H, n, >= N] is true where a row sees a key, or is added to the scores; it
    says by itself what is causal. Rows are done in blocks, and a block reads only the keys it can see.
    """
    rows, keys = query.shape[2], key.shape[2]
    history = keys - rows
    blocks = []
    for first in range(0, rows, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, rows)
        low = 0 if window is None else max(0, history + first - window + 1)
        high = history + last
        position = torch.arange(history + first, high, device=query.device)[:, None]
        column = torch.arange(low, high, device=query.device)
        visible = column <= position
        if window is not None:
            visible &= column > position - window
        if mask is not None:
            visible = mask[:, :, first:last, low:high]
        block, k, v = query[:, :, first:last], key[:, :, low:high], value[:, :, low:high]
        if softcap is None and sinks is None:
            blocks.append(
                F.scaled_dot_product_attention(block, k, v, attn_mask=visible, scale=scaling, enable_gqa=True)
            )
        else:
            blocks.append(_explicit(block, k, v, scaling, visible, softcap, sinks))
    return torch.cat(blocks, dim=2)


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    visible: Tensor,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """softmax(softcap * tanh(q k / softcap)) v with the sinks in the denominator, written out."""
    batch, heads, rows, size = query.shape
    groups = key.shape[1]
    packed = query.reshape(batch, groups, heads // groups, rows, size)
    scores = (packed @ key.unsqueeze(2).transpose(-1, -2)).float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if visible.ndim == 4:  # by head
        visible = visible.expand(-1, heads, -1, -1).reshape(batch, groups, heads // groups, *visible.shape[2:])
    scores = scores.masked_fill(~visible, float("-inf")) if visible.dtype == torch.bool else scores + visible.float()
    if sinks is not None:
        extra = sinks.float().reshape(1, groups, heads // groups, 1, 1).expand(batch, -1, -1, rows, 1)
        weights = torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights.to(value.dtype) @ value.unsqueeze(2)).reshape(batch, heads, rows, -1)
