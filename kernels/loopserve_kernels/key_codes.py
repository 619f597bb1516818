"""Keys in eight bits, by which a CPU looks through all of them in less than half of float32's time.

    key[g, n, d] ~ codes[g, n, d] * step[g, d],   codes from -127 to 127

Every channel has a step of its own, since a few are much larger than the others (arXiv 2402.02750). A product of
queries turned so as well is exact in int32; what is lost is the rounding of both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST = 127
# Steps that there are between a number and its double: with few, a channel whose keys grow seldom needs another.
STEPS = 4
GROWTH = 1.5
# Keys that are looked at or turned at once: what is made of them stays in a CPU's cache.
TILE = 4096
# Of a sum of weights, so that neither it nor its reciprocal leaves float32's range.
LARGEST = 1e30


class Scratch:
    """Room for one group's weights, used again for the next: fresh memory would cost more than the product."""

    def __init__(self) -> None:
        """Nothing is allocated yet."""
        self.held = torch.empty(0)

    def room(self, rows: int, columns: int) -> Tensor:
        """[rows, columns] fp32 of any content, valid until the next call."""
        if self.held.numel() < rows * columns:
            self.held = torch.empty((rows + TILE) * columns)
        return self.held[: rows * columns].view(rows, columns)


class KeyCodes:
    """The codes of one layer's keys [G, N, D]. They follow a store: what it appends is turned, the rest stands."""

    def __init__(self, scratch: Scratch) -> None:
        """Nothing is allocated until there are keys; layers that are judged one after the other share a scratch."""
        self.length = 0
        self._scratch = scratch
        self._codes: Tensor | None = None  # [G, C, D] int8
        self._step: Tensor | None = None  # [G, D] fp32
        self._looked = 0  # keys of which the sizes are known
        self._reached: Tensor | None = None  # [G, D] fp32, the largest of them in every channel
        self._marks: list[tuple[int, Tensor]] = []  # both as they were, once a tile, to go back to

    @property
    def tensors(self) -> list[Tensor]:
        """What is allocated."""
        return [part for part in (self._codes, self._step) if part is not None]

    def rewind(self, length: int) -> None:
        """The keys from `length` on are others now, or none."""
        self.length = min(self.length, length)
        if length < self._looked:
            while self._marks and self._marks[-1][0] > length:
                self._marks.pop()
            self._looked, self._reached = self._marks[-1] if self._marks else (0, None)

    def follow(self, key: Tensor) -> None:
        """Hold the codes of key [G, N, D], on a CPU, of which the first `length` are known.

        They follow from the keys alone, whatever was held in between, so that a dialogue taken back goes on as before.
        """
        keys = key.shape[1]
        step = step_for(self._look(key))
        if self._step is None or not torch.equal(step, self._step):
            self._step, self.length = step, 0
        self._make_room(keys, key)
        assert self._codes is not None
        tile = max(1, TILE // key.shape[0])
        for first in range(self.length, keys, tile):
            own = slice(first, min(first + tile, keys))
            self._codes[:, own] = key[:, own].float().div(step[:, None]).round_()
        self.length = keys

    def _look(self, key: Tensor) -> Tensor:
        """The largest size of every channel of key [G, N, D], fp32 [G, D]."""
        while self._looked < key.shape[1]:
            own = key[:, self._looked : self._looked + TILE].abs().amax(1).float()
            self._reached = own if self._reached is None else torch.maximum(self._reached, own)
            self._looked = min(self._looked + TILE, key.shape[1])
            if self._looked - (self._marks[-1][0] if self._marks else 0) >= TILE:
                self._marks.append((self._looked, self._reached))
        assert self._reached is not None
        return self._reached

    def _make_room(self, keys: int, key: Tensor) -> None:
        if self._codes is not None and self._codes.shape[1] >= keys:
            return
        rows = keys + TILE if self._codes is None else int(keys * GROWTH)
        grown = torch.empty(key.shape[0], rows, key.shape[2], dtype=torch.int8)
        if self._codes is not None:
            grown[:, : self.length] = self._codes[:, : self.length]
        self._codes = grown

    def mass(self, query: Tensor, positions: Tensor, scaling: float, pool: str, out: Tensor) -> bool:
        """As `key_mass_torch`, for the keys that are held; whether `out` was written, which is fp32.

        It is not where a query's largest logits lie out of float32's reach of those that it gives the newest keys.
        """
        assert self._codes is not None and self._step is not None and out.shape[1] == self.length
        groups, keys = out.shape
        slots = positions.shape[0]
        seen = max(0, min(int(positions.min()) + 1, keys))
        ahead = (torch.arange(seen, keys)[:, None] > positions).repeat(1, query.shape[0] // groups)
        weights = self._scratch.room(keys, ahead.shape[1])
        for group, block in enumerate(query.unflatten(0, (groups, -1))):
            rows = block.flatten(0, 1).float() * self._step[group] * (scaling * math.log2(math.e))
            total = self._weigh(group, rows, ahead, weights)
            if not bool(((total > 0) & (total < LARGEST)).all()):
                return False
            share = total.reciprocal_()
            if pool == "mean":
                torch.mv(weights, share.div_(len(share)), out=out[group])
            else:
                torch.amax(weights.mul_(share).unflatten(1, (-1, slots)).mean(2), 1, out=out[group])
        return True

    def _weigh(self, group: int, rows: Tensor, ahead: Tensor, out: Tensor) -> Tensor:
        """2 to the power of every logit over the largest among the newest keys: rows [m, D], out [N, m]; sums [m].

        A key that is `ahead` [a, m], of the last a, has 0.
        """
        assert self._codes is not None
        seen = self.length - len(ahead)
        step = (rows.abs().amax(1) / MOST).clamp_(min=torch.finfo(torch.float32).tiny)
        turned = (rows / step[:, None]).round_().to(torch.int8).T
        product = torch.empty(TILE, rows.shape[0], dtype=torch.int32)
        shift, total = None, torch.zeros(rows.shape[0])
        for end in range(self.length, 0, -TILE):
            first = max(0, end - TILE)
            whole, own = product[: end - first], out[first:end]
            torch._int_mm(self._codes[group, first:end], turned, out=whole)
            own.copy_(whole)
            if shift is None:
                shift = own.amax(0).mul_(step).neg_()
            torch.exp2(torch.addcmul(shift, own, step, out=own), out=own)
            if end > seen:
                place = max(first, seen)
                own[place - first :].masked_fill_(ahead[place - seen : end - seen], 0.0)
            total += own.sum(0)
        return total


def step_for(reached: Tensor) -> Tensor:
    """What a code of 1 stands for, so that numbers of the size `reached` have codes."""
    return (reached / MOST).clamp_(min=torch.finfo(torch.float32).tiny).log2_().mul_(STEPS).ceil_().div_(STEPS).exp2_()
