"""Coverage: which share of the sampled rows' attention every prefix of a ranking covers, overlaps counted once.

A cell (row i, key) is covered by the prefix of length L if its vertical or its slash ranks below L, so

    histogram[h, min(rank_v[key], rank_s[p_i - key])] += P[h, i, key]

and the cumulative sum over ranks, divided by m, is the exact coverage of every prefix at once. Adding line
masses instead counts a cell on two lines twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu
from loopserve_kernels.lines import check_sample, sampled_weights


def coverage_histogram(
    rows: Tensor,
    positions: Tensor,
    key: Tensor,
    scaling: float,
    lse: Tensor,
    vertical_rank: Tensor,
    slash_rank: Tensor,
    size: int,
) -> Tensor:
    """Mass first covered at each rank, [P, size]; cells on no line ranked below `size` are left out.

    rows [H, m, D], positions [m], key [G, N, D], lse [H, m] as in `line_mass`; ranks int32 [P, N] by key and by
    offset, P = H or G (then the mean over the group's heads).
    """
    check_sample(rows, positions, key)
    if on_gpu(key):
        from loopserve_kernels.coverage_triton import coverage_histogram_triton

        return coverage_histogram_triton(rows, positions, key, scaling, lse, vertical_rank, slash_rank, size)
    return coverage_histogram_torch(rows, positions, key, scaling, lse, vertical_rank, slash_rank, size)


def coverage_histogram_torch(
    rows: Tensor,
    positions: Tensor,
    key: Tensor,
    scaling: float,
    lse: Tensor,
    vertical_rank: Tensor,
    slash_rank: Tensor,
    size: int,
) -> Tensor:
    """The twin: ranks of every cell of one head, then one weighted count."""
    heads, plans = rows.shape[0], vertical_rank.shape[0]
    histogram = torch.zeros(plans, size, dtype=torch.float64)
    head = 0
    for group in sampled_weights(rows, positions, key, scaling, lse):
        for weights in group:
            plan = head // (heads // plans)
            rank = torch.minimum(vertical_rank[plan], by_key(slash_rank[plan], positions))
            # Only cells on some line are counted: most cells are on none, and they all share one rank.
            inside = (rank < size).flatten().nonzero().squeeze(1)
            rank, mass = rank.flatten()[inside], weights.flatten()[inside]
            histogram[plan] += torch.bincount(rank, mass.double(), size)
            head += 1
    return (histogram / (heads // plans)).to(lse.dtype)


def bucket_mass(
    rows: Tensor, positions: Tensor, key: Tensor, scaling: float, lse: Tensor, bucket: Tensor, buckets: int
) -> Tensor:
    """Mass of every key split by the bucket of the cell's offset: out[p, b, key], fp32 [P, buckets, N].

    bucket [P, N] int32 by offset. Summed over the buckets whose slashes are not chosen, it is what a vertical
    adds to those that are.
    """
    check_sample(rows, positions, key)
    if on_gpu(key):
        from loopserve_kernels.coverage_triton import bucket_mass_triton

        return bucket_mass_triton(rows, positions, key, scaling, lse, bucket, buckets)
    return bucket_mass_torch(rows, positions, key, scaling, lse, bucket, buckets)


def bucket_mass_torch(
    rows: Tensor, positions: Tensor, key: Tensor, scaling: float, lse: Tensor, bucket: Tensor, buckets: int
) -> Tensor:
    """The twin: one weighted count of the cells in buckets below the last, which takes what is left of each key."""
    heads, keys, plans = rows.shape[0], key.shape[1], bucket.shape[0]
    out = torch.zeros(plans, buckets, keys, dtype=lse.dtype)
    head = 0
    for group in sampled_weights(rows, positions, key, scaling, lse):
        for weights in group:
            plan = head // (heads // plans)
            own = by_key(bucket[plan], positions)
            row, column = (own < buckets - 1).nonzero(as_tuple=True)
            cell = own[row, column] * keys + column
            counted = torch.bincount(cell, weights[row, column], (buckets - 1) * keys)
            out[plan, :-1] += counted.reshape(buckets - 1, keys).to(lse.dtype)
            out[plan, -1] += (weights * (own >= buckets - 1)).sum(0)
            head += 1
    return out / (heads // plans)


def by_key(by_offset: Tensor, positions: Tensor) -> Tensor:
    """Turn values by offset [N] into values by key [m, N]: out[i, key] = by_offset[p_i - key].

    Keys after the row (negative offsets) get the value of offset N - 1 downwards: mask their weight, which is 0.
    """
    keys = by_offset.shape[0]
    backwards = by_offset.flip(0)
    return torch.stack([backwards.roll(position + 1 - keys) for position in positions.tolist()])
