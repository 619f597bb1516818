"""What a keep policy answers that chooses within every step, by that step's own query: whole pages of keys."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from loopserve_cli.policies.keep.base import KeepPolicy
from loopserve_kernels.page_bounds import PageBounds


class StepwisePolicy(KeepPolicy):
    """Pages of `page` keys, of which a step reads `most`; the newest one, which fills up, is always among them.

    The first `dense_layers` layers of a model read everything.
    """

    page: int
    most: int
    dense_layers: int = 0

    @abstractmethod
    def choose_pages(self, query: Tensor, bounds: PageBounds, position: Tensor) -> Tensor:
        """The `most - 1` whole pages to read, ascending, int32 [G, most - 1].

        query [H, D] of the step, position int64 [1] on its device, the keys before it. Nothing may wait for the device,
        nor depend on the host: the choice is part of a step that is captured as a CUDA graph.
        """

    @property
    def room(self) -> int:
        """Keys per head that a step reads at most, its own among them."""
        return self.most * self.page

    def held(self, keys: int) -> int:
        """Keys per head that a step reads beside its own where `keys` came before it."""
        return (self.most - 1) * self.page + keys % self.page
