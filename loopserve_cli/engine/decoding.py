"""One turn's decoding under a keep policy: when keys are chosen, from which queries, and what is read then."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.engine.working_set import WorkingSet, mean_length
from loopserve_cli.policies.keep import KeepPolicy, Seen
from loopserve_cli.profiling import Spans
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.key_mass import key_mass

ACCUMULATED_ROWS = 32


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """What decoding read at its last step, per head on average over layers, and how often it chose again."""

    keys_read: int
    reselections: int
    reselect_ms: float
    working_set_bytes: int


@dataclass(slots=True)
class Ring:
    """The newest `size` queries of one layer, [H, size, D], in no order; the first `count` slots are used."""

    size: int
    queries: Tensor | None = None
    positions: Tensor | None = None
    count: int = 0
    next: int = 0

    def push(self, query: Tensor, position: int) -> None:
        """Add query [H, n, D] whose last row stands at `position`, over the oldest ones."""
        rows = min(query.shape[1], self.size)
        if self.queries is None or self.positions is None:
            self.queries = query.new_empty(query.shape[0], self.size, query.shape[2])
            self.positions = torch.zeros(self.size, dtype=torch.int64, device=query.device)
        if rows == 1:
            self.queries[:, self.next] = query[:, -1]
            self.positions[self.next] = position
        else:
            slots = (self.next + torch.arange(rows, device=query.device)) % self.size
            self.queries[:, slots] = query[:, -rows:]
            self.positions[slots] = torch.arange(position - rows + 1, position + 1, device=query.device)
        self.next = (self.next + rows) % self.size
        self.count = min(self.size, self.count + rows)


@dataclass(slots=True)
class _Layer:
    """The state of one layer: its ring, its working set (None reads everything), and tokens since the last choice."""

    ring: Ring
    working: WorkingSet = field(default_factory=WorkingSet)
    chosen: bool = False  # the working set is what is read
    due_in: int = 0
    choices: int = 0
    keys: int = 0  # stored when last asked
    accumulated: Tensor | None = None


class DecodeTurn:
    """The decoding of one turn. Nothing of it outlives the turn: the store alone remembers."""

    def __init__(self, policy: KeepPolicy) -> None:
        """Nothing seen yet."""
        self.policy = policy
        self._layers: dict[int, _Layer] = {}
        self._choosing = Spans()

    @property
    def watches(self) -> bool:
        """Whether prefill must show its queries."""
        return self.policy.window > 0 or self.policy.accumulates

    def observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Note what prefill saw in one layer and chunk: query [1, H, n, D], key [1, G, N, D]."""
        state = self._state(layer)
        if self.policy.window:
            state.ring.push(query[0], key.shape[2] - 1)
        if self.policy.accumulates:
            with self._choosing.span(query.device):
                state.accumulated = accumulate(state.accumulated, query[0], key[0], scaling)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one new token: query [1, H, 1, D], key and value [1, G, N, D], itself last; [1, H, 1, D]."""
        state = self._state(layer)
        state.keys = key.shape[2]
        if state.due_in == 0:
            self._choose(state, key[0, :, :-1], value[0, :, :-1], scaling)
        state.due_in -= 1
        if self.policy.window:
            state.ring.push(query[0], key.shape[2] - 1)
        if not state.chosen:
            return dense_attention(query, key, value, scaling)
        state.working.append(key[0, :, -1], value[0, :, -1])
        return state.working.attend(query[0, :, 0], scaling)[None, :, None]

    def _choose(self, state: _Layer, key: Tensor, value: Tensor, scaling: float) -> None:
        """Ask the policy, unless the first interval reads everything; key and value [G, N, D] before this token."""
        interval = self.policy.interval
        state.due_in = -1 if interval is None else interval
        first = state.choices == 0
        state.choices += 1
        if first and self.policy.first_full:
            return
        with self._choosing.span(key.device):
            ring = state.ring
            queries = key.new_empty(0, 0, key.shape[2]) if ring.queries is None else ring.queries[:, : ring.count]
            positions = torch.empty(0) if ring.positions is None else ring.positions[: ring.count]
            keys = self.policy.select(Seen(queries, positions, key, scaling, state.accumulated))
            state.chosen = keys is not None
            if keys is not None:
                state.working.fill(keys, key, value, room=interval or 256)

    def report(self, stored: int) -> DecodeReport:
        """The turn's figures; waits for the devices. Where nothing was decoded all `stored` keys count as read."""
        states = list(self._layers.values())
        read = [mean_length(s.working) if s.chosen else float(s.keys) for s in states]
        return DecodeReport(
            keys_read=round(sum(read) / len(read)) if any(read) else stored,
            reselections=max((s.choices - 1 for s in states if s.choices), default=0),
            reselect_ms=self._choosing.ms(),
            working_set_bytes=sum(s.working.bytes for s in states),
        )

    def _state(self, layer: int) -> _Layer:
        if layer not in self._layers:
            self._layers[layer] = _Layer(Ring(self.policy.window))
        return self._layers[layer]


def accumulate(so_far: Tensor | None, query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Attention of all rows summed by key, mean over the group: query [H, n, D] (the newest), key [G, N, D]; [G, N]."""
    new, keys = query.shape[1], key.shape[1]
    total = key.new_zeros(key.shape[0], keys, dtype=torch.float32) if so_far is None else so_far
    total = F.pad(total, (0, keys - total.shape[1]))
    for first in range(0, new, ACCUMULATED_ROWS):
        rows = torch.arange(first, min(first + ACCUMULATED_ROWS, new), device=query.device)
        total += key_mass(query[:, rows], keys - new + rows, key, scaling, "mean") * len(rows)
    return total
