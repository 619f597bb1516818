"""Quest: at every step, the pages that can hold the keys which its query looks at most (Tang et al., arXiv 2406.10774).

As published: pages of 16 keys, ranked by the upper bound of the query's product with any of their keys, which follows
from every channel's lowest and highest number; the newest page always among them; the first two layers dense. The paper
has a key-value head for every query head. Where several share one, their bounds are brought together here, since they
read the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from loopserve_cli.policies.keep.base import Keys, ScoringWindow
from loopserve_cli.policies.keep.stepwise import StepwisePolicy
from loopserve_kernels.page_bounds import PageBounds
from loopserve_kernels.page_index import page_index
from loopserve_kernels.page_scores import page_scores
from loopserve_kernels.selection import best, padded_places


class Quest(StepwisePolicy):
    """As many whole pages as the budget holds, at least one."""

    def __init__(self, budget: int, page: int, group: str, dense_layers: int) -> None:
        """Settings as the profile explains them."""
        self.budget = budget
        self.page = page
        self.most = max(1, budget // page)
        self.group = group
        self.dense_layers = dense_layers

    def leaves_out(self, keys: int) -> bool:
        """Whether there are more keys than the budget."""
        return keys > self.budget

    def choose_pages(self, query: Tensor, bounds: PageBounds, position: Tensor) -> Tensor:
        """Ties by number, so that runs repeat."""
        assert bounds.low is not None and bounds.high is not None
        wanted = self.most - 1
        groups = bounds.low.shape[0]
        if not wanted:
            return torch.empty(groups, 0, dtype=torch.int32, device=query.device)
        scores = page_scores(query, bounds.low, bounds.high, position, self.page, self.group)
        count = torch.full((groups,), wanted, dtype=torch.int32, device=query.device)
        return padded_places(best(scores, count, wanted), wanted)

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """What a step with the newest query would read of the keys, its own key not among them."""
        return [self._keys(one) for one in windows]

    def _keys(self, one: ScoringWindow) -> Keys:
        keys = one.key.shape[1]
        bounds = PageBounds(self.page)
        bounds.make_room(max(1, keys // self.page), one.key)
        bounds.append(one.key)
        position = torch.full((1,), keys, device=one.key.device)
        index, count = page_index(self.choose_pages(one.query[:, -1], bounds, position), self.page, position)
        held = self.held(keys)
        return Keys(index[:, :held], count, even=True, total=held * one.key.shape[0])
