"""Which lines the heads of a chunk chose, kept to be looked at where somebody asked for that. Lines alone, no weights.

While a turn runs they lie where they were made, as they were made, so that keeping them launches nothing and waits for
nothing. Once it has ended, `settle` brings to the host what of them is no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.entries import causal_entries
from loopserve_kernels.tile_index import Index


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """One query head's figures. A dense head computes every key, and has no lines that count.

    `density` is entries computed / causal entries, `coverage` the share of the sampled rows' attention on the lines,
    None where nobody measured it. `asked` tells a head that was dense without being asked from one that chose so.
    """

    dense: bool
    asked: bool
    verticals: int
    slashes: int
    density: float
    coverage: float | None

    @property
    def lines(self) -> int:
        """Vertical and slash ones together."""
        return self.verticals + self.slashes


DENSE = HeadChoice(dense=True, asked=False, verticals=0, slashes=0, density=1.0, coverage=1.0)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What the asked groups of one layer chose: P line heads for the query heads of those groups."""

    asked: tuple[int, ...]
    vertical: Tensor  # [P, K] int32
    vertical_count: Tensor  # [P]
    slash: Tensor  # [P, L] int32
    slash_count: Tensor  # [P]
    coverage: Tensor  # [P]
    dense: Tensor  # [P] bool
    entries: Tensor  # [P] int64

    def settled(self) -> _Layer:
        """On the host, without padding; waits for the device."""
        verticals, slashes = self.vertical_count.cpu(), self.slash_count.cpu()
        return _Layer(
            self.asked,
            self.vertical[:, : int(verticals.max())].to("cpu", copy=True),
            verticals,
            self.slash[:, : int(slashes.max())].to("cpu", copy=True),
            slashes,
            *(part.cpu() for part in (self.coverage, self.dense, self.entries)),
        )


class ChosenLines:
    """The lines of the newest chunk in which any head chose: `new` rows, the last of `keys` keys, in `layers` layers.

    `heads` are the query heads of a layer, `groups` its key-value heads. Before a choice all of them are 0.
    """

    def __init__(self, layers: int) -> None:
        """Nothing chosen yet, in a model of so many layers."""
        self.layers = layers
        self.new = self.keys = self.heads = self.groups = 0
        self._asked: tuple[int, ...] = ()
        self._found: dict[int, _Layer] = {}

    @property
    def any(self) -> bool:
        """Whether there is a choice to look at."""
        return bool(self._found)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        parts = (getattr(one, name) for one in self._found.values() for name in _Layer.__slots__ if name != "asked")
        return sum(part.nbytes for part in parts)

    def asks(self, asked: Sequence[int], groups: int) -> None:
        """The next layer to choose does so for the `asked` of its groups, of so many."""
        self._asked, self.groups = tuple(asked), groups

    def chose(self, layer: int, query: Tensor, key: Tensor, lines: Lines, index: Index) -> None:
        """Keep a layer's choice for its asked groups: query [H, n, D] and key [G, N, D] are theirs."""
        new, keys = query.shape[1], key.shape[1]
        if (new, keys) != (self.new, self.keys):
            self._found.clear()
        self.new, self.keys = new, keys
        self.heads = query.shape[0] // len(self._asked) * self.groups
        assert index.entries is not None
        self._found[layer] = _Layer(
            self._asked,
            lines.vertical,
            lines.vertical_count,
            lines.slash,
            lines.slash_count,
            lines.coverage,
            index.dense,
            index.entries,
        )

    def settle(self) -> None:
        """Bring everything to the host, trimmed to what was chosen; waits for the device."""
        self._found = {number: layer.settled() for number, layer in self._found.items()}

    def choices(self, layer: int) -> list[HeadChoice]:
        """Every query head of a layer; a layer that was not asked is dense."""
        return [self._choice(layer, head) for head in range(self.heads)]

    def lines_of(self, layer: int, head: int) -> tuple[list[int], list[int]]:
        """The keys of a query head's verticals and the offsets of its slashes, ascending; none where it is dense."""
        found, plan = self._plan(layer, head)
        if found is None or bool(found.dense[plan]):
            return [], []
        verticals, slashes = int(found.vertical_count[plan]), int(found.slash_count[plan])
        return found.vertical[plan, :verticals].tolist(), found.slash[plan, :slashes].tolist()

    def _choice(self, layer: int, head: int) -> HeadChoice:
        found, plan = self._plan(layer, head)
        if found is None:
            return DENSE
        dense, coverage = bool(found.dense[plan]), float(found.coverage[plan])
        return HeadChoice(
            dense,
            asked=True,
            verticals=0 if dense else int(found.vertical_count[plan]),
            slashes=0 if dense else int(found.slash_count[plan]),
            density=int(found.entries[plan]) / causal_entries(self.new, self.keys),
            coverage=1.0 if dense else None if coverage != coverage else coverage,
        )

    def _plan(self, layer: int, head: int) -> tuple[_Layer | None, int]:
        """What was chosen in a layer, and which of its line heads is the query head's; None where it was not asked."""
        each = self.heads // self.groups
        found = self._found.get(layer)
        if found is None or head // each not in found.asked:
            return None, 0
        place = found.asked.index(head // each) * each + head % each
        return found, place * len(found.dense) // (len(found.asked) * each)
