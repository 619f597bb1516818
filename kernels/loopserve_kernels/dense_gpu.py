"""Dense attention on a GPU by the fastest kernel that torch has for it, with nothing of size n x N in memory.

cuDNN's kernel and FlashAttention compute causal attention over as many rows as keys, or all of the keys. New rows over
a longer history are both, merged by their log-sum-exp; SDPA's lower-right bias would leave Hopper to FlashAttention-2.
Only the private operators give the log-sum-exp, and nothing else does (run with torch 2.13).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loopserve_kernels.lower_right import lower_right
from loopserve_kernels.merge import merge

# Output [B, H, n, D] and log-sum-exp, B x H x n numbers, of query, key, value; the flag is causal.
Partial = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor]]
# Few rows are one launch of a kernel that splits the keys; merging gains where the matrix unit is busy.
MERGED_FROM = 1024
HOPPER = (9, 0)


def dense_gpu(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """As `dense_attention`, for n > 1 rows. Never waits, and takes no path that writes scores down."""
    rows, keys = query.shape[2], key.shape[2]
    partial = fused_partial(query, key, value, scaling)
    if partial is None:
        return folded_attention(query, key, value, scaling)
    if rows == keys:
        return partial(query, key, value, True)[0]
    if rows >= MERGED_FROM:
        return history_and_own(query, key, value, partial)
    if query.device.type == "meta":  # the bias picks FlashAttention too, but only on a real GPU
        return partial(query, key, value, False)[0]
    return lower_right(query, key, value, scaling, query.shape[1] != key.shape[1])


def fused_partial(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Partial | None:
    """FlashAttention, or cuDNN's kernel from Hopper on; None where these tensors fit neither: fp32, odd head sizes."""
    from torch.backends.cuda import SDPAParams, can_use_cudnn_attention, can_use_flash_attention

    if query.dtype not in (torch.float16, torch.bfloat16):
        return None
    if query.device.type == "meta":
        return flash_partial(scaling)
    asked = SDPAParams(query, key, value, None, 0.0, False, query.shape[1] != key.shape[1])
    if torch.cuda.get_device_capability(query.device) >= HOPPER and can_use_cudnn_attention(asked):
        return cudnn_partial(scaling)
    # FlashAttention wants whole multiples of 8, which SDPA would pad to.
    if query.shape[-1] % 8 == 0 and can_use_flash_attention(asked):
        return flash_partial(scaling)
    return None


def cudnn_partial(scaling: float) -> Partial:
    """CuDNN's kernel."""

    def partial(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = torch.ops.aten._scaled_dot_product_cudnn_attention(
            query, key, value, None, True, 0.0, causal, False, scale=scaling
        )[:2]
        return out, lse

    return partial


def flash_partial(scaling: float) -> Partial:
    """FlashAttention."""

    def partial(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scaling
        )[:2]
        return out, lse

    return partial


def history_and_own(query: Tensor, key: Tensor, value: Tensor, partial: Partial) -> Tensor:
    """All of the history for every row, merged with the causal part among the new; shapes of `dense_attention`."""
    history = key.shape[2] - query.shape[2]
    old, old_lse = partial(query, key[:, :, :history], value[:, :, :history], False)
    own, own_lse = partial(query, key[:, :, history:], value[:, :, history:], True)
    shape = query.shape[:3]
    return merge(old, old_lse.reshape(shape), own, own_lse.reshape(shape))


def folded_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """SDPA without groups, which the memory-efficient kernel lacks: a group's heads read the same keys by stride 0.

    Asked for groups in fp32, SDPA takes its math path: 34 GB of scores for 8,192 rows over 32k keys of 32 heads.
    """
    batch, heads, rows, size = query.shape
    groups = key.shape[1]
    query = query.reshape(batch * groups, heads // groups, rows, size)
    key, value = (part.flatten(0, 1)[:, None].expand(-1, heads // groups, -1, -1) for part in (key, value))
    if query.device.type == "meta":  # where SDPA itself knows only its math path
        out = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, False, 0.0, True, scale=scaling
        )[0]
    else:
        out = lower_right(query, key, value, scaling, False)
    return out.reshape(batch, heads, rows, -1)
