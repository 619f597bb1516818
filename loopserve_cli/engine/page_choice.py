"""Choices that are made within every step: the bounds of pages that they go by, and the reading of what was chosen.

A step's pages are chosen on the device, in the middle of its pass, from the bounds of all whole pages; those are
brought up to date before the pass, as the store is then. What a choice takes is timed where its pass is run; in a pass
that is replayed it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from loopserve_cli.engine.cursor import Place
from loopserve_cli.engine.layer_decoding import LayerDecoding
from loopserve_cli.engine.store import Store
from loopserve_cli.engine.store_layer import StoreLayer
from loopserve_cli.policies.keep import StepwisePolicy
from loopserve_cli.timers import Spans
from loopserve_kernels.gather import gather_keys
from loopserve_kernels.page_index import page_index
from loopserve_kernels.rotation import Rotation
from loopserve_kernels.step_write import step_write


class PageChoice:
    """One turn's choices over a store. `choices` counts steps that made one, `timed` says whether all were timed."""

    def __init__(self, policy: StepwisePolicy, store: Store, took: Spans) -> None:
        """Nothing is chosen yet."""
        self.choices = 0
        self.timed = True
        self._policy = policy
        self._store = store
        self._took = took

    def observe(self, layer: int, key: Tensor) -> None:
        """Bring a layer's bounds up to date with all its keys [G, N, D], which prefill has at hand."""
        if layer >= self._policy.dense_layers:
            held = self._store.layers[layer]
            with self._took.span(key.device):
                bounds = held.page_bounds(self._policy.page)
                bounds.append(key[:, bounds.keys :])

    def due(self, layers: Mapping[int, LayerDecoding]) -> bool:
        """Whether the next step chooses in any layer, or no longer does."""
        return any(layer.chosen or self._leaves_out(number) for number, layer in layers.items())

    def _leaves_out(self, number: int) -> bool:
        return number >= self._policy.dense_layers and self._policy.leaves_out(self._store.layers[number].length)

    def begin_step(self, layers: Mapping[int, LayerDecoding]) -> None:
        """Say which layers choose in the next step, and have ready what they choose by and read."""
        for number, layer in layers.items():
            layer.chosen = self._leaves_out(number)
            if layer.chosen:
                self._prepare(self._store.layers[number], layer)

    def _prepare(self, held: StoreLayer, layer: LayerDecoding) -> None:
        policy = self._policy
        bounds = held.page_bounds(policy.page)
        behind = held.length - bounds.keys >= policy.page
        if behind or not held.resident:
            with self._took.span(held.device):
                if behind:
                    bounds.append(held.keys_from(bounds.keys))
                if not held.resident:
                    held.sources(held.groups * policy.held(held.length))  # so that all but the step's token lie there
        assert held.keys is not None and held.values is not None
        layer.buffers.working.prepare(held.keys[0], held.values[0], policy.room, policy.most - 1, held.device)

    def attend(
        self, held: StoreLayer, layer: LayerDecoding, place: Place, query: Tensor, key: Tensor, value: Tensor,
        rotation: Rotation | None,
    ) -> Tensor:  # fmt: skip
        """Within a pass: write the step's token, choose by its query [H, D], and attend; [H, D]."""
        working, page = layer.buffers.working, self._policy.page
        assert working.lengths is not None and working.pages is not None and held.bounds is not None
        assert working.keys is not None and working.values is not None
        assert held.keys is not None and held.values is not None
        # The token goes behind what will be chosen: how much that is follows from its position.
        working.lengths.copy_(place.position.remainder(page).add_((self._policy.most - 1) * page))
        row = step_write(query, key, value, held.place(place.row), None, working.place(), rotation)
        with self._timing(query.device):
            working.pages.copy_(self._policy.choose_pages(row, held.bounds, place.position))
            index, count = page_index(working.pages, page, place.position)
            gather_keys(held.keys[0], held.values[0], index, count, working.keys, working.values)
        return working.attend(row, layer.scaling)

    def end_step(self, layers: Mapping[int, LayerDecoding]) -> None:
        """Count the step's choices; the store has not counted its token yet."""
        chosen = [number for number, layer in layers.items() if layer.chosen]
        for number in chosen:
            keys = self._store.layers[number].length
            layers[number].buffers.working.note_pages(self._policy.page, keys, self._policy.held(keys))
        self.choices += bool(chosen)

    @contextmanager
    def _timing(self, device: torch.device) -> Iterator[None]:
        """Count the time of what is done inside, unless it is captured: then nothing is done."""
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            yield
        else:
            with self._took.span(device):
                yield
