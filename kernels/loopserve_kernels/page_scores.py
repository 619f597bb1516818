"""Page scores: the most that any key of a page can have of a query's product, from the page's bounds alone.

    score[h, p] = sum_d max(q_hd low_pd, q_hd high_pd)  >=  q_h k  for every key k of page p
    scores[g, p] = max (or mean) of score[h, p] over the heads of group g

Quest (arXiv 2406.10774) ranks pages by it at every step. max(q low, q high) is q high where q is positive, else q low,
so it is two products: of the positive part with `high`, and of the negative part with `low`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu

POOLS = ("max", "mean")


def page_scores(query: Tensor, low: Tensor, high: Tensor, position: Tensor, page: int, pool: str = "max") -> Tensor:
    """Scores of every page, fp32 [G, C] (float64 for float64 tensors).

    query [H, D], one row per head; low and high [G, C, D], H a multiple of G; position int64 [1] on their device, the
    keys before the query: pages from position // page on are not whole, and have -inf, whatever stands there; so has
    what is no number. On a GPU one launch, in which the position is read, so a captured CUDA graph replays.
    """
    check_pages(query, low, high, position, pool)
    if on_gpu(low):
        from loopserve_kernels.page_scores_triton import page_scores_triton

        return page_scores_triton(query, low, high, position, page, pool)
    return page_scores_torch(query, low, high, position, page, pool)


def page_scores_torch(query: Tensor, low: Tensor, high: Tensor, position: Tensor, page: int, pool: str) -> Tensor:
    """The twin."""
    groups, capacity, _ = low.shape
    precision = torch.float64 if low.dtype == torch.float64 else torch.float32
    rows = query.unflatten(0, (groups, -1)).to(precision)
    scores = rows.clamp(min=0) @ high.to(precision).transpose(1, 2)
    scores.baddbmm_(rows.clamp(max=0), low.to(precision).transpose(1, 2))
    pooled = scores.amax(1) if pool == "max" else scores.mean(1)
    unknown = torch.arange(capacity, device=low.device) >= position // page
    return pooled.masked_fill_(unknown | pooled.isnan(), float("-inf"))


def check_pages(query: Tensor, low: Tensor, high: Tensor, position: Tensor, pool: str) -> None:
    """Assert that shapes, dtypes and devices fit each other."""
    assert low.shape == high.shape and query.shape[1] == low.shape[2], (query.shape, low.shape, high.shape)
    assert query.shape[0] % low.shape[0] == 0, f"{query.shape[0]} heads over {low.shape[0]} key-value heads"
    assert query.dtype == low.dtype == high.dtype
    assert query.device == low.device == high.device == position.device
    assert position.shape == (1,) and position.dtype == torch.int64
    assert pool in POOLS, pool
