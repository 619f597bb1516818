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
    groups = key.shape[0]
    means = mean.unflatten(0, (groups, -1)) * scaling
    # The covariances of a group's heads side by side, [G, D, members x D]: one product for all of them.
    spreads = covariance.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2) * (scaling**2 / 2)
    logits = []
    for rows in key.split(BLOCK, dim=1):
        rows = rows.float()
        squares = (rows @ spreads).unflatten(2, (means.shape[1], -1)).mul_(rows[:, :, None]).sum(3)
        logits.append(torch.baddbmm(squares.transpose(1, 2), means, rows.transpose(1, 2)))
    return torch.cat(logits, 2).softmax(2).mean(1)
