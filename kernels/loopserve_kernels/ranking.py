"""Lines ranked by their mass, those that may not be left out before all others."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.mass import LineMass
from loopserve_kernels.rules import Rules


def ranked(mass: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest masses per row, [P, count] int64, ties by index so that runs repeat.

    The bits of a float that is not negative order like the float, so (bits, reversed index) is one sortable integer.
    """
    index = torch.arange(mass.shape[1], device=mass.device)
    order = (mass.float().clamp_min(0).view(torch.int32).long() << 32) + (0xFFFFFFFF - index)
    return order.topk(count, dim=1).indices


def ranks(order: Tensor, size: int) -> Tensor:
    """The rank of each of `size` lines, int32 [P, size], from an order [P, K]; lines not in it rank K."""
    rank = torch.full((order.shape[0], size), order.shape[1], dtype=torch.int32, device=order.device)
    place = torch.arange(order.shape[1], dtype=torch.int32, device=order.device)
    return rank.scatter_(1, order, place.expand_as(order))


def forced_mass(mass: LineMass, rules: Rules) -> tuple[Tensor, Tensor]:
    """Masses with what may not be left out raised to infinity."""
    vertical, slash = mass.vertical.clone(), mass.slash.clone()
    vertical[:, : rules.sinks] = float("inf")
    slash[:, : rules.local] = float("inf")
    return vertical, slash


def pack(index: Tensor, keep: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Kept indices ascending and padded with `keys`, int32, and how many there are."""
    kept = index.masked_fill(~keep, keys).to(torch.int32).sort(1).values
    return kept, keep.sum(1, dtype=torch.int32)
