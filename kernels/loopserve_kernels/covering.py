"""Cover: the fewest of some scores that hold a share of their sum."""

from __future__ import annotations

import torch
from torch import Tensor


def covering(scores: Tensor, share: float, least: int = 0, forced: Tensor | None = None) -> Tensor:
    """The smallest set of every row's largest scores that holds `share` of the row's sum, bool like scores [..., K].

    Scores are not negative. At least `least` are taken, and `forced` ones (bool, broadcast) before all others, whether
    needed or not. Equal scores are taken by their place, so runs repeat. Nothing waits for the device.
    """
    first = scores if forced is None else scores.masked_fill(forced, float("inf"))
    order = first.sort(dim=-1, descending=True, stable=True).indices
    ordered = scores.gather(-1, order).double()
    before = ordered.cumsum(-1) - ordered
    place = torch.arange(scores.shape[-1], device=scores.device)
    taken = (before < share * ordered.sum(-1, keepdim=True)) | (place < least)
    found = torch.zeros_like(taken).scatter_(-1, order, taken)
    return found if forced is None else found | forced
