"""What attention and choosing cost on a device, as measured: it says beforehand whether choosing lines can pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What choosing may take of a chunk's time where it then finds nothing to leave out.
MOST_LOSS = 0.03
# By then it has been asked for: a first chunk's layers are looked at when a third of them has chosen.
ASKED = 1 / 3
# What a head with few lines executes of its cells. One with more than most_density executes all.
GOOD_DENSITY = 0.1
# Multiply-adds per row of a layer's projections and feed-forward, in squares of (heads x head size), about.
LAYER_PRODUCTS = 12


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on one device in one dtype. The first three go by head size, for one head.

    `dense_cell`: a causal query-key pair of dense attention; `sparse_cell`: one that sparse attention executes;
    `sampled_pair`: a sampled row and a key, in choosing and making the index. `product`: a multiply-add of a large
    matrix product. `fixed`: choosing in one layer and chunk, however small. `measured_on` is the device that was
    measured, `used_for` the one that asks, None where nobody asked yet.
    """

    measured_on: str
    dtype: str
    dense_cell: Mapping[int, float]
    sparse_cell: Mapping[int, float]
    sampled_pair: Mapping[int, float]
    product: float
    fixed: float
    where: str
    torch: str
    date: str
    used_for: str | None = None

    def pays(self, new: int, keys: int, heads: int, size: int, sampled: int) -> bool:
        """Whether choosing can pay for `new` rows over `keys` keys of one layer, looking at `sampled` of the rows.

        It does not where choosing and a good density's cells together take longer than dense attention, nor where
        finding nothing would lose more than MOST_LOSS of the layer's time.
        """
        cells = heads * (new * (keys - new) + new * (new + 1) / 2)
        choosing = self.fixed + heads * sampled * keys * at(self.sampled_pair, size)
        dense = cells * at(self.dense_cell, size)
        sparse = GOOD_DENSITY * cells * at(self.sparse_cell, size)
        rest = new * LAYER_PRODUCTS * (heads * size) ** 2 * self.product
        return choosing + sparse < dense and ASKED * choosing <= MOST_LOSS * (dense + rest)

    def most_density(self, size: int | None = None) -> float:
        """The share of a head's cells above which dense attention is cheaper, from 0 to 1; at worst over all sizes."""
        sizes = self.dense_cell if size is None else (size,)
        return min(1.0, *(at(self.dense_cell, one) / at(self.sparse_cell, one) for one in sizes))

    def note(self) -> str | None:
        """In a line, that another device's figures stand in; None where this very one was measured."""
        if self.used_for in (None, self.measured_on):
            return None
        return f"{self.used_for} was never measured: it goes by {self.measured_on}'s costs; see bench device"


def at(by_size: Mapping[int, float], size: int) -> float:
    """The coefficient of a head size: the nearest measured one's, in proportion to the size."""
    nearest = min(by_size, key=lambda known: (abs(known - size), known))
    return by_size[nearest] * size / nearest
