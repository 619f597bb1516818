"""Attention over two sets of keys, from attention over each."""

from __future__ import annotations

import torch
from torch import Tensor


def merge(left: Tensor, left_lse: Tensor, right: Tensor, right_lse: Tensor) -> Tensor:
    """Attention over two disjoint key sets from attention over each.

    out = left * s + right * (1 - s), s = sigmoid(left_lse - right_lse); outputs [..., n, D], lse [..., n].
    """
    share = torch.sigmoid(left_lse - right_lse).unsqueeze(-1).to(left.dtype)
    return torch.lerp(right, left, share)
