"""The keys of chosen pages, as `gather_keys` takes them: the pages' own, then what came after the last whole page.

index[g] = pages[g, 0] page .. + page - 1, pages[g, 1] page .., ..., floor(position / page) page .. position - 1
"""

from __future__ import annotations

import torch
from torch import Tensor


def page_index(pages: Tensor, page: int, position: Tensor) -> tuple[Tensor, Tensor]:
    """Index int32 [G, K page + page - 1], ascending where the pages are, and its count int32 [G].

    pages int32 [G, K], all of them whole; position int64 [1] on their device, the keys that there are. Entries from the
    count on are padding. Nothing on the host depends on the position, so a captured CUDA graph replays.
    """
    groups, chosen = pages.shape
    within = torch.arange(page, dtype=torch.int32, device=pages.device)
    index = (pages[:, :, None] * page + within).flatten(1)
    rest = position.remainder(page)
    newest = ((position - rest) + within[: page - 1]).to(torch.int32)
    count = (rest + chosen * page).to(torch.int32)
    return torch.cat((index, newest.expand(groups, -1)), 1), count.repeat(groups)
