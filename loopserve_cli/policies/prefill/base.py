"""What a prefill policy answers, and the gate that asks whether to ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from loopserve_cli.policies.prefill.routes import Routes
from loopserve_kernels.blocks import Blocks
from loopserve_kernels.chosen_lines import Lines


@dataclass(frozen=True, slots=True)
class Gate:
    """When sparse attention is not worth it: dense then, and the record says so.

    `min_new` and `min_keys` refuse an input before anything is chosen; `most_density` makes a head dense whose
    lines would compute more than this share of its causal entries. A `closed` gate never opens. They are outer bounds:
    where rows are looked at, what the device was measured to need is asked as well (`costs.py`), unless
    `most_density` is 1: then lines are wanted whatever they cost.
    """

    min_new: int = 1
    min_keys: int = 1
    most_density: float = 1.0
    closed: bool = False

    def opens(self, new: int, keys: int) -> bool:
        """Whether `new` rows over `keys` keys are enough for choosing to pay."""
        return not self.closed and new >= self.min_new and keys >= self.min_keys

    @property
    def asks_costs(self) -> bool:
        """Whether the device's costs are asked too."""
        return self.most_density < 1


class PrefillPolicy(Protocol):
    """One method of prefill attention for one dialogue. It is built from a profile's settings, by keyword."""

    gate: Gate
    routes: Routes

    @property
    def dense_rows(self) -> int:
        """How many of a turn's last rows see every key: the first token of the answer comes from them."""

    @property
    def alpha(self) -> float | None:
        """The share of attention asked for, where the method has one."""

    def sampled(self, new: int) -> int:
        """How many of so many new rows are looked at to choose; 0 where nothing is looked at."""


class LinePolicy(PrefillPolicy, Protocol):
    """One that chooses vertical and slash lines."""

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines | None:
        """The lines of one layer for query [H, n, D] over key [G, N, D], the new rows last; None is dense.

        `rows_per_block` is the height of the tiles that will execute them.
        """


@runtime_checkable
class BlockPolicy(PrefillPolicy, Protocol):
    """One that chooses blocks of rows and keys. Its `dense_rows` are 0: rows that see everything are blocks as well."""

    def blocks(self, query: Tensor, key: Tensor, scaling: float) -> Blocks:
        """The blocks of one layer for query [H, n, D] over key [G, N, D], the new rows last."""
