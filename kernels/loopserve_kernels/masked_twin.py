"""What every sparse attention is compared with: scores of every cell, hidden where a mask says so."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_twin(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attention of query [H, n, D] over key and value [G, N, D] where mask, bool [P, n, N], is true; [H, n, D].

    Holds [n, N] for one head. Computes in fp32, of float64 in float64.
    """
    precision = torch.promote_types(query.dtype, torch.float32)
    out = torch.empty_like(query)
    for head in range(query.shape[0]):
        group, plan = head * key.shape[0] // query.shape[0], head * mask.shape[0] // query.shape[0]
        scores = query[head].to(precision) @ key[group].to(precision).T * scaling
        weights = scores.masked_fill(~mask[plan], float("-inf")).softmax(-1)
        out[head] = (weights @ value[group].to(precision)).to(query.dtype)
    return out
