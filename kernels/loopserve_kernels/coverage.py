"""Coverage: which share of the sampled rows' attention every prefix of a ranking covers, overlaps counted once.

A cell (row i, key) is covered by the prefix of length L if its vertical or its slash ranks below L, so

    histogram[h, min(rank_v[key], rank_s[p_i - key])] += P[h, i, key]

and the cumulative sum over ranks, divided by m, is the exact coverage of every prefix at once. Adding line
masses instead counts a cell on two lines twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.mass import LineMass
from loopserve_kernels.weights import SampledWeights


def coverage_histogram(mass: LineMass, vertical_rank: Tensor, slash_rank: Tensor, size: int) -> Tensor:
    """Mass first covered at each rank, [P, size], on a CPU; cells on no line ranked below `size` are left out.

    Ranks int32 [P, N] by key and by offset, P = H or G (then the mean over the group's heads). A GPU needs no ranks,
    see `coverage_triton.py`.
    """
    weights = mass.weights
    assert isinstance(weights, SampledWeights)
    heads, (plans, keys) = weights.row.shape[0], slash_rank.shape
    # Offsets fall from left to right, and what lies ahead of a row is on no line.
    behind = F.pad(slash_rank.flip(1), (0, max(run.rows for run in weights.runs)), value=size)
    histogram = torch.zeros(plans, size + 1, dtype=torch.float64)
    for run, block in zip(weights.runs, weights.blocks(), strict=True):
        own = keys - 1 - weights.positions[run.first : run.first + run.rows]
        rank = torch.minimum(vertical_rank[:, None, : run.seen], behind.unfold(1, run.seen, 1)[:, own])
        cells = block.unflatten(0, (plans, -1)).sum(1, dtype=torch.float64)
        histogram.scatter_add_(1, rank.clamp_max_(size).long().flatten(1), cells.flatten(1))
    return (histogram[:, :size] / (heads // plans)).to(mass.lse.dtype)
