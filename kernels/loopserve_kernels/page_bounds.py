"""Bounds of pages: the lowest and the highest number of every channel among the keys of a page.

    low[g, p, d] = min_i key[g, p * page + i, d],   high[g, p, d] = max_i,   i < page

Only whole pages have bounds: a page that still fills up is read in any case (Quest, arXiv 2406.10774).
"""

from __future__ import annotations

from torch import Tensor


class PageBounds:
    """The bounds of one layer's pages, [G, C, D] in the keys' precision; the first `pages` are known.

    They follow a store: what it appends is added, what it takes back is forgotten. `make_room` says whether the
    buffers came to lie elsewhere.
    """

    def __init__(self, page: int) -> None:
        """For pages of so many keys; nothing is allocated until there is room to make."""
        assert page > 0
        self.page = page
        self.pages = 0
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """What is allocated."""
        return [part for part in (self.low, self.high) if part is not None]

    @property
    def keys(self) -> int:
        """How many keys are in pages whose bounds are known."""
        return self.pages * self.page

    def make_room(self, pages: int, like: Tensor) -> bool:
        """Hold at least `pages` pages of keys like [G, n, D], on its device; whether the buffers moved."""
        if self.low is not None and self.high is not None and self.low.shape[1] >= pages:
            return False
        for name in ("low", "high"):
            old: Tensor | None = getattr(self, name)
            new = like.new_empty(like.shape[0], pages, like.shape[2])
            if old is not None:
                new[:, : self.pages] = old[:, : self.pages]
            setattr(self, name, new)
        return True

    def append(self, rows: Tensor) -> None:
        """Add the bounds of further keys [G, n, D], the first of them key number `keys`; a rest waits for more."""
        assert self.low is not None and self.high is not None
        pages = rows.shape[1] // self.page
        if not pages:
            return
        end = self.pages + pages
        by_page = rows[:, : pages * self.page].unflatten(1, (pages, self.page))
        self.low[:, self.pages : end] = by_page.amin(2)
        self.high[:, self.pages : end] = by_page.amax(2)
        self.pages = end

    def rewind(self, length: int) -> None:
        """The keys from `length` on are others now, or none."""
        self.pages = min(self.pages, length // self.page)
