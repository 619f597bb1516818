"""One turn's decoding under a keep policy: when keys are chosen, from which queries, and what is read then.

A step (one token) is `begin_step`, a forward pass in which every layer calls `attend`, and `end_step`. All that the
host decides or counts happens outside of the pass, so that the pass can be captured as a CUDA graph and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_cli.engine.layer_decoding import LayerBuffers, LayerDecoding, Observation, accumulate, spread
from loopserve_cli.engine.page_choice import PageChoice
from loopserve_cli.engine.ring import Ring
from loopserve_cli.engine.selection import Selection
from loopserve_cli.engine.store import Store
from loopserve_cli.engine.working_set import mean_length
from loopserve_cli.policies.keep import KeepPolicy, ScoringWindow, StepwisePolicy
from loopserve_cli.timers import Spans
from loopserve_kernels.decode import decode_attention
from loopserve_kernels.rotation import Rotation
from loopserve_kernels.step_write import step_write


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """What decoding read at its last step, per head on average over layers, and how often it chose again.

    `streamed_bytes` came from the host's memory to the device to be read, during the turn's prefill too. `reselect_ms`
    is None where choices were part of replayed steps.
    """

    keys_read: int
    reselections: int
    reselect_ms: float | None
    working_set_bytes: int
    streamed_bytes: int


class DecodeTurn:
    """The decoding of one turn. Nothing that it knows outlives the turn: the store alone remembers."""

    def __init__(
        self, policy: KeepPolicy, store: Store, buffers: dict[int, LayerBuffers] | None = None, freezes: bool = False
    ) -> None:
        """Nothing seen yet; `buffers` are those of earlier turns under the same policy, by layer.

        `freezes` says that the store evicts by what is seen here.
        """
        self.policy = policy
        self.freezes = freezes
        self.store = store
        self._buffers = {} if buffers is None else buffers
        for held in self._buffers.values():
            held.ring.clear()
        self._layers: dict[int, LayerDecoding] = {}
        self._choosing = Spans()
        self._selection = Selection(policy, store, self._choosing)
        self._pages: PageChoice | None = None  # choices within steps
        if isinstance(policy, StepwisePolicy):
            self._pages = PageChoice(policy, store, self._choosing)
        self.captures = True  # whether a step's pass may be captured
        self._due_in = 0
        self._keys = 0  # stored when last asked
        self._streamed = store.streamed  # before the turn

    @property
    def watches(self) -> bool:
        """Whether prefill must show its queries."""
        return self.policy.window > 0 or self.policy.accumulates or self.policy.expects

    @property
    def judges(self) -> bool:
        """Whether there is something to judge keys by, in every layer that takes part."""
        policy, layers = self.policy, self._layers.values()
        seen = all(s.buffers.ring.count for s in layers) if policy.window else True
        summed = all(s.accumulated is not None for s in layers) if policy.accumulates else True
        known = all(s.statistics is not None for s in layers) if policy.expects else True
        return bool(layers) and seen and summed and known

    @property
    def state(self) -> tuple[object, ...]:
        """What a step's pass has baked in when it is captured: another state needs another capture."""
        reads = [(number, s.buffers.working.moves if s.chosen else None) for number, s in self._layers.items()]
        return (*reads, *(layer.moves for layer in self.store.layers))

    @property
    def resident(self) -> bool:
        """Whether a step reads nothing that must first be brought to the device."""
        return all(
            layer.resident or (number in self._layers and self._layers[number].chosen)
            for number, layer in enumerate(self.store.layers)
        )

    def observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Note what prefill saw in one layer and chunk: query [1, H, n, D], key [1, G, N, D]."""
        state = self._layer(layer, scaling)
        if self.policy.window:
            state.buffers.ring.push(query[0], key.shape[2] - 1)
        if self._pages is not None:
            self._pages.observe(layer, key[0])
        if self.policy.accumulates:
            with self._choosing.span(query.device):
                state.accumulated = accumulate(state.accumulated, query[0], key[0], scaling)
        if self.policy.expects:
            with self._choosing.span(query.device):
                self._spread(layer, state, query[0])

    def _spread(self, layer: int, state: LayerDecoding, query: Tensor) -> None:
        """Note how query [H, n, D] of a chunk is spread; the dialogue's first rows are outliers, and left out."""
        assert self.store.rope is not None
        end = self.store.layers[layer].get_seq_length()
        rows = min(query.shape[1], end - self.policy.sinks)
        if rows > 0:
            places = torch.arange(end - rows, end, device=query.device)
            state.statistics = spread(state.statistics, query[:, -rows:], self.store.rope.at(layer, places))

    def observations(self) -> dict[int, Observation]:
        """What prefill showed so far, by layer; before the turn's first step this is all that its steps judge by."""
        return {number: state.observation() for number, state in self._layers.items()}

    def recall(self, observations: Mapping[int, Observation], captures: bool) -> None:
        """Be as before a turn's first step, which was observed so; nothing was observed or decoded here yet."""
        assert not self._layers and not self._buffers
        self.captures = captures
        for number, one in observations.items():
            layer = self._layers[number] = LayerDecoding.recalled(one)
            self._buffers[number] = layer.buffers

    @property
    def steady(self) -> bool:
        """Whether the next step chooses nothing and moves no buffer, and nothing is lost if it is not counted.

        A tier that evicts judges the turn by its ring of queries, of which a step takes the oldest.
        """
        room = all(s.buffers.working.has_room for s in self._layers.values() if s.chosen)
        chooses = self._due_in == 0 if self._pages is None else self._pages.due(self._layers)
        return not chooses and not self.freezes and room and self.store.has_room

    def begin_step(self) -> None:
        """Choose keys where that is due, and make room for one token."""
        if self._pages is not None:
            self._pages.begin_step(self._layers)
        elif self._due_in == 0:
            self._due_in = self._selection.choose(self._layers)
        self._due_in -= 1
        for state in self._layers.values():
            if state.chosen:
                state.buffers.working.make_room()
        rings = [state.buffers.ring for state in self._layers.values()]
        self.store.begin_step(rings[0].next if rings else 0)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the step's token: query [1, H, 1, D], its own key and value [1, G, 1, D]; [1, H, 1, D]."""
        return self.attend_row(layer, query[0, :, 0], key[0, :, 0], value[0, :, 0])[None, :, None]

    def attend_row(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rotation: Rotation | None = None
    ) -> Tensor:
        """Write the step's token and attend: query [H, D], its own key and value [G, D]; [H, D].

        With a `rotation` query and key are turned by it first.
        """
        state = self._layers[layer]
        held, place = self.store.layers[layer], self.store.cursor.places[layer]
        if state.chosen and self._pages is not None:
            return self._pages.attend(held, state, place, query, key, value, rotation)
        ring = state.buffers.ring.place(place.slot, place.position) if self.policy.window else None
        working = state.buffers.working.place() if state.chosen else None
        row = step_write(query, key, value, held.place(place.row), ring, working, rotation)
        if state.chosen:
            return state.buffers.working.attend(row, state.scaling)
        keys, values = held.buffers()
        return decode_attention(row, keys[0], values[0], place.lengths, state.scaling)

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Write the step's token, [1, G, 1, D], of a layer that attends in a way of its own."""
        self.store.layers[layer].write(key, value, self.store.cursor.places[layer].row)

    def advance(self) -> None:
        """Within a step's pass: have the devices' numbers be the next step's."""
        self.store.cursor.advance(self.policy.window)

    def count_advance(self) -> None:
        """A pass that ends in `advance` was asked for."""
        self.store.cursor.count(self.policy.window)

    def keys_in(self, layer: int) -> int:
        """Keys of a layer within a step, its token among them."""
        return self.store.layers[layer].length + 1

    def everything(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer within a step, [1, G, N, D], the step's token the last."""
        return self.store.layers[layer].everything(self.keys_in(layer))

    def takes_part(self, layer: int) -> bool:
        """Whether prefill saw the layer's plain attention."""
        return layer in self._layers

    def leave(self, layer: int) -> None:
        """From now on the layer needs more than plain attention: it reads everything, and cannot be captured."""
        self.captures = False
        self._layers.pop(layer, None)

    def count_replay(self) -> None:
        """The step's pass is a replay: how long what is done within it takes is not known."""
        if self._pages is not None:
            self._pages.timed = False

    def end_step(self) -> None:
        """Count the token that the pass has written."""
        if self._pages is not None:
            self._pages.end_step(self._layers)
        for state in self._layers.values():
            if self.policy.window:
                state.buffers.ring.advance()
            if state.chosen:
                state.buffers.working.advance()
        self.store.end_step()
        self._keys = self.store.length

    def drop_step(self) -> None:
        """Let a step that was asked for go uncounted; the turn ends with it."""
        for state in self._layers.values():
            if state.chosen:
                state.buffers.working.drop()
        self.store.drop_step()

    def scoring_window(self, layer: int, key: Tensor) -> ScoringWindow:
        """What the policy may judge one layer's keys [G, N, D] by."""
        return self._selection.window(layer, self._layers[layer], key)

    @property
    def layers(self) -> list[int]:
        """The layers that take part, by number."""
        return list(self._layers)

    @property
    def is_of_now(self) -> bool:
        """Whether its last step was the last thing that happened to the store."""
        return self._keys > 0 and self._keys == self.store.length

    def read_between(self, layer: int, cuts: Sequence[int]) -> list[float] | None:
        """Keys per head that a layer's last step read of the rows between each two cuts; None: it read all of them."""
        state = self._layers.get(layer)
        return state.buffers.working.between(cuts) if state is not None and state.chosen else None

    def rewind(self) -> None:
        """Forget what was seen of tokens that the store forgot."""
        for number, state in self._layers.items():
            state.rewind(self.store.layers[number].length)

    @property
    def even(self) -> bool:
        """Whether the host knows how many keys every head reads."""
        return all(s.buffers.working.even for s in self._layers.values() if s.chosen)

    def shares(self) -> dict[int, tuple[float, ...]] | None:
        """By layer, of every key-value head the share of the keys that the last step read; None where it read all.

        Waits for the devices.
        """
        if not self._keys or not any(state.chosen for state in self._layers.values()):
            return None
        every = {number: (1.0,) * self.store.layers[number].groups for number in self._layers}
        chosen = {number: state.buffers.working.lengths for number, state in self._layers.items() if state.chosen}
        return every | {n: tuple((own / self._keys).tolist()) for n, own in chosen.items() if own is not None}

    def report(self, stored: int) -> DecodeReport:
        """The turn's figures; waits for the devices. Where nothing was decoded all `stored` keys count as read."""
        states = [state for state in self._layers.values() if self._keys]
        choices, timed = self._selection.choices, True
        if self._pages is not None:
            choices, timed = self._pages.choices, self._pages.timed
        read = [mean_length(s.buffers.working) if s.chosen else float(self._keys) for s in states]
        return DecodeReport(
            keys_read=round(sum(read) / len(read)) if read else stored,
            reselections=max(choices - 1, 0),
            reselect_ms=self._choosing.ms() if timed else None,
            working_set_bytes=sum(s.buffers.working.bytes for s in self._layers.values() if s.chosen),
            streamed_bytes=self.store.streamed - self._streamed,
        )

    def _layer(self, layer: int, scaling: float) -> LayerDecoding:
        if layer not in self._layers:
            buffers = self._buffers.setdefault(layer, LayerBuffers(Ring(self.policy.window)))
            self._layers[layer] = LayerDecoding(buffers, scaling)
        return self._layers[layer]
