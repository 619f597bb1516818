"""Expected mass: the attention that queries of a known mean and covariance can be expected to give every key.

Where a query is normal, E exp(s q k) = exp(s mean k + s^2/2 k^T covariance k), so for head h

    logit[h, key] = s mean_h k + s^2/2 k^T covariance_h k
    mass[g, key]  = mean over the heads of group g of softmax over keys of logit[h, key]

Source: expected attention (Devoto et al., 2025; `ExpectedAttentionPress` of kvpress).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Keys that are multiplied with a covariance at once, so that what is made of them stays small.
BLOCK = 8192


def expected_mass(mean: Tensor, covariance: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Mass of every key, fp32 [G, N].

    mean [H, D] and covariance [H, D, D] of the queries where they will stand, fp32; key [G, N, D], H a multiple of G.
    Plain torch on every device, and no wait.
    """
    groups, keys, _ = key.shape
    means = mean.unflatten(0, (groups, -1)) * scaling
    squares = covariance.unflatten(0, (groups, -1)) * (scaling**2 / 2)
    logits = torch.empty(groups, means.shape[1], keys, dtype=torch.float32, device=key.device)
    for first in range(0, keys, BLOCK):
        own = slice(first, min(first + BLOCK, keys))
        rows = key[:, own].float()
        logits[:, :, own] = means @ rows.transpose(1, 2)
        for member in range(means.shape[1]):
            logits[:, member, own] += torch.bmm(rows, squares[:, member]).mul_(rows).sum(2)
    return logits.softmax(2).mean(1)
