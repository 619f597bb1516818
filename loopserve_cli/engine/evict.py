"""Tier evict: what a turn's keys are judged not worth keeping is gone for good.

When the next turn begins, the segment of the turn before is compressed to the profile's budget, once, and frozen:
compressing what was compressed before loses the early turns (FlowKV, arXiv 2505.15347). So a dialogue of T turns
holds at most T times the budget in every head, and the newest turn whole. Follow-up questions may ask for what is
gone (SCBench, arXiv 2412.10319), which is why nobody gets this tier without asking for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.store import Store


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The store as a segment begins: tokens read so far, and every layer's rows and dropped tokens."""

    tokens: int
    layers: tuple[tuple[int, int], ...]


class Eviction:
    """The frozen segments of a dialogue, and the open one."""

    def __init__(self, store: Store) -> None:
        """Nothing is frozen."""
        self._store = store
        self._starts = [self._now(0)]

    @property
    def began(self) -> int:
        """How many tokens came before the open segment."""
        return self._starts[-1].tokens

    def row(self, layer: int, token: int) -> int | None:
        """Where in a layer's rows a token stands, or would; None inside of a frozen segment, where few are left."""
        start = self._starts[-1]
        if token >= start.tokens:
            return start.layers[layer][0] + token - start.tokens
        return next((one.layers[layer][0] for one in self._starts if one.tokens == token), None)

    def freeze(self, turn: DecodeTurn, tokens: int) -> None:
        """Compress the open segment by what `turn` noted of it, and open one that begins after `tokens`.

        A segment of which nothing was noted, since all of that was undone, stays open and becomes part of the next.
        """
        start = self._starts[-1]
        if tokens == start.tokens or not turn.judges:
            return
        chosen = []  # all of it before any of it is done: memory may run out
        for number in turn.layers:
            layer, first = self._store.layers[number], start.layers[number][0]
            key = layer.everything(layer.length)[0][0][:, first:]
            window = turn.scoring_window(number, key)
            accumulated = None if window.accumulated is None else window.accumulated[:, first:]
            keys = turn.policy.select(replace(window, positions=window.positions - first, accumulated=accumulated))
            if keys is not None:
                assert keys.even, "a frozen segment has the same number of keys in every head"
                chosen.append((layer, first, *layer.rows_at(keys.index + first)))
        for layer, first, kept_keys, kept_values in chosen:
            layer.hold_instead(first, kept_keys, kept_values)
        self._starts.append(self._now(tokens))

    def rewind(self, tokens: int) -> int:
        """Return the store to `tokens`, or to where their frozen segment began: before that much it is exact."""
        frozen = tokens < self._starts[-1].tokens
        while tokens < self._starts[-1].tokens:
            self._starts.pop()
        start = self._starts[-1]
        if not frozen:
            self._store.rewind(tokens)
            return tokens
        for layer, held in zip(self._store.layers, start.layers, strict=True):
            layer.length, layer.dropped = held
        return start.tokens

    def _now(self, tokens: int) -> SegmentStart:
        return SegmentStart(tokens, tuple((layer.length, layer.dropped) for layer in self._store.layers))
