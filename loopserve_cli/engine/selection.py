"""The selection of keys: which of a layer's keys its steps read from now on, as a keep policy judges them."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.engine.layer_decoding import LayerDecoding
from loopserve_cli.engine.store import Store
from loopserve_cli.policies.keep import ExpectedQueries, KeepPolicy, ScoringWindow
from loopserve_cli.timers import Spans

# Tokens a working set has room for at most after a choice; it grows when they are more.
ROOM = 256


class Selection:
    """One turn's choices over a store. `choices` counts them, `took` the time that judging and gathering took."""

    def __init__(self, policy: KeepPolicy, store: Store, took: Spans) -> None:
        """Nothing is chosen yet."""
        self.choices = 0
        self._policy = policy
        self._store = store
        self._took = took

    def choose(self, layers: dict[int, LayerDecoding]) -> int:
        """Fill every layer's working set; after how many steps that is due again, -1 for never.

        A layer of which nothing is left out reads everything, and so do all where the policy's first interval does.
        """
        interval = self._policy.interval
        first = self.choices == 0
        self.choices += 1
        if not (first and self._policy.first_full):
            for (device, keys, _), alike in self._alike(layers).items():
                if self._policy.leaves_out(keys):
                    self._fill(device, {number: layers[number] for number in alike}, min(interval or ROOM, ROOM))
                    continue
                for number in alike:
                    layers[number].chosen = False
        return -1 if interval is None else interval

    def _fill(self, device: torch.device, layers: dict[int, LayerDecoding], room: int) -> None:
        """Choose for layers that are alike, and gather what was chosen."""
        with self._took.span(device):
            chosen = self._policy.choose(self.window(n, one, *self._to_judge(n)) for n, one in layers.items())
            for (number, layer), own in zip(layers.items(), chosen, strict=True):
                key, value = (part[0] for part in self._store.layers[number].sources(own.total))
                layer.buffers.working.fill(own, key, value, room=room)
                layer.chosen = True

    def _alike(self, layers: dict[int, LayerDecoding]) -> dict[tuple[torch.device, int, int], list[int]]:
        """Layers that one choice can be made for, by device, keys held and key-value heads."""
        found: dict[tuple[torch.device, int, int], list[int]] = {}
        for number in layers:
            held = self._store.layers[number]
            found.setdefault((held.device, held.length, held.groups), []).append(number)
        return found

    def _to_judge(self, number: int) -> tuple[Tensor, Tensor | None]:
        """One layer's keys [G, N, D], and its values if they count; a policy that looks at none gets a shape."""
        held = self._store.layers[number]
        if self._policy.expects:
            keys, values = held.everything(held.length)
            return keys[0], values[0]
        if self._policy.window:
            return held.all_keys()[0], None
        assert held.keys is not None
        nothing = torch.empty((), dtype=held.dtype, device=held.device)
        return nothing.expand(held.groups, held.length, held.keys.shape[3]), None

    def window(self, number: int, layer: LayerDecoding, key: Tensor, value: Tensor | None = None) -> ScoringWindow:
        """What the policy may judge one layer's keys [G, N, D] by, the newest ones, and its values where they count."""
        policy, held = self._policy, self._store.layers[number]
        if policy.window:
            queries, positions = layer.buffers.ring.newest()
        else:
            queries, positions = key.new_empty(0, 0, key.shape[2]), torch.empty(0)
        summed = layer.accumulated
        if summed is not None:  # over the turn's prefill: what came after it has no mass
            summed = F.pad(summed, (0, held.length - summed.shape[1]))
        again = policy.window and policy.interval  # keys are judged often enough for codes to pay
        codes = self._store.coding.of(held, key) if again else None
        expected = None
        if policy.expects:
            value = held.everything(held.length)[1][0, :, -key.shape[1] :] if value is None else value
            expected = self._expected(number, layer)
        return ScoringWindow(queries, positions, key, layer.scaling, summed, codes, expected, value)

    def _expected(self, number: int, layer: LayerDecoding) -> ExpectedQueries:
        """What queries are to be expected after all that a layer was shown."""
        assert layer.statistics is not None and self._store.rope is not None
        position = self._store.layers[number].get_seq_length()
        return ExpectedQueries(layer.statistics, partial(self._store.rope.at, number), position)
