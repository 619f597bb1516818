"""Selection: which keys of every key-value head stay in the working set, from the mass the newest queries give them.

The first `sinks` and the last `recent` keys are always in; the others come in order of mass, ties by index, until the
budget is full. Plain torch on every device: nothing waits for it, every shape follows from settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.choice import pack, ranked


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen keys of G key-value heads, as `gather_keys` takes them."""

    index: Tensor  # [G, budget] int32 keys, ascending, padded with N
    count: Tensor  # [G] int32


def select_keys(
    mass: Tensor,
    budget: int,
    sinks: int,
    recent: int,
    length: int | Tensor | None = None,
    budgets: Tensor | None = None,
) -> Selection:
    """The `budget` best keys of each row of mass [G, N] (not negative), ascending.

    Only the first `length` keys exist (all N by default); a 0-d integer tensor on the mass's device lets a CUDA graph
    replay while the store grows. count[g] is the smaller of budget and length, so that a budget of N or more gives all
    keys in order. `budgets`, integer [G], gives every head its own (AdaKV): `budget` is then the largest, the width
    that rows are padded to; a larger one is cut to it, one below sinks + recent raised to that. Rows are
    independent: the masses of several layers may be stacked and selected in one call.
    """
    groups, keys = mass.shape
    assert min(sinks, recent) >= 0 and sinks + recent <= budget, f"{sinks} sinks, {recent} recent, budget {budget}"
    length = keys if length is None else length
    place = torch.arange(keys, device=mass.device)
    forced = (place < sinks) | (place >= length - recent)
    # Keys that do not exist tie at 0 with the least of those that do, and lose by their index. Filled rather than
    # chosen by `where`, which copies a number to a GPU and waits for it.
    raised = mass.float().masked_fill(forced, float("inf")).masked_fill(place >= length, 0.0)
    order = ranked(raised, min(budget, keys))
    wanted = torch.full((groups,), budget, device=mass.device)
    if budgets is not None:
        assert budgets.shape == (groups,) and budgets.device == mass.device and not budgets.is_floating_point()
        wanted = budgets.clamp(sinks + recent, budget)
    keep = torch.arange(order.shape[1], device=mass.device) < wanted.clamp(max=length)[:, None]
    index, count = pack(order, keep, keys)
    return Selection(torch.nn.functional.pad(index, (0, budget - index.shape[1]), value=keys), count)
