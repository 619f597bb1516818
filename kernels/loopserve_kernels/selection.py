"""Selection: which keys of every key-value head stay in the working set, from the mass the newest queries give them.

The first `sinks` and the last `recent` keys are always in; the others come in order of mass, ties by index, until the
budget is full. Plain torch on every device: on a GPU nothing waits for it, every shape follows from settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_kernels.device import on_gpu


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
    raised = with_forced(mass, sinks, recent, length)
    if budgets is None and isinstance(length, int) and not on_gpu(mass):
        index = best_places(raised, min(budget, length))
        count = torch.full((groups,), index.shape[1], dtype=torch.int32)
        return Selection(F.pad(index, (0, budget - index.shape[1]), value=keys), count)
    wanted = torch.full((groups,), budget, dtype=torch.int32, device=mass.device)
    if budgets is not None:
        assert budgets.shape == (groups,) and budgets.device == mass.device and not budgets.is_floating_point()
        wanted = budgets.clamp(sinks + recent, budget).to(torch.int32)
    count = wanted.clamp(max=length)
    return Selection(padded_places(best(raised, count, min(budget, keys)), budget), count)


def with_forced(mass: Tensor, sinks: int, recent: int, length: int | Tensor) -> Tensor:
    """A copy of mass [G, N], fp32, in which keys that are always in are infinite, and those that do not exist 0.

    The latter tie with the least of the others and lose by their index. So does what is no number.
    """
    raised = torch.nan_to_num(mass.float(), nan=0.0)
    if isinstance(length, int):
        raised[:, length:].fill_(0.0)
        raised[:, max(length - recent, 0) : length].fill_(float("inf"))
        raised[:, : min(sinks, length)].fill_(float("inf"))
        return raised
    # Filled rather than chosen by `where`, which copies a number to a GPU and waits for it.
    place = torch.arange(mass.shape[1], device=mass.device)
    forced = (place < sinks) | (place >= length - recent)
    return raised.masked_fill_(forced, float("inf")).masked_fill_(place >= length, 0.0)


def best(mass: Tensor, count: Tensor, most: int) -> Tensor:
    """Which are the count[g] largest of each row of mass [G, N], bool; ties by index, so that runs repeat.

    No count is above `most`. What is larger than the last one that is in is in, and of its equals the first.
    """
    ranked = mass.topk(most, dim=1).values
    cut = ranked.gather(1, (count.long() - 1)[:, None])
    above, equal = mass > cut, mass == cut
    room = count - above.sum(1, dtype=torch.int32)
    return above | (equal & (equal.cumsum(1, dtype=torch.int32) <= room[:, None]))


def best_places(mass: Tensor, count: int) -> Tensor:
    """Where the `count` largest of each row of mass [G, N] are, ascending, int32 [G, count]; ties by index.

    As `best` and `padded_places` find them, in half of a CPU's time: only keys that are in are looked at twice.
    """
    cut = mass.topk(count, dim=1, sorted=False).values.amin(1)
    places = []
    for row, least in zip(mass, cut, strict=True):
        place = (row >= least).nonzero()[:, 0]
        if len(place) > count:
            kept = torch.ones(len(place), dtype=torch.bool)
            kept[(row[place] == least).nonzero()[count - len(place) :, 0]] = False
            place = place[kept]
        places.append(place)
    return torch.stack(places).to(torch.int32)


def padded_places(kept: Tensor, width: int) -> Tensor:
    """Where kept [G, N] is true, ascending, int32 [G, width] padded with N; no row has more than `width`."""
    groups = kept.shape[0]
    nth = torch.arange(1, width + 1, dtype=torch.int32, device=kept.device).repeat(groups, 1)
    return torch.searchsorted(kept.cumsum(1, dtype=torch.int32), nth, out_int32=True)
