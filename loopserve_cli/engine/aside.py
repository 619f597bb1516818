"""A detour from a dialogue: what is held for a while over the same store, and leaves it as it was, exactly.

Keys and values that the dialogue has stay where they are. Those that the detour takes back are first copied to the
host, and put back in the end; so a detour costs the bytes of what it goes back over, and no prefill.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.out_of_memory import memory_told
from loopserve_cli.profile import Profile


class Aside(DialogueState):
    """What a detour holds: at first the same as `of`, whose store it shares. `of` is not to be used meanwhile."""

    def __init__(self, of: DialogueState, profile: Profile) -> None:
        """Under `profile`, whose tier must be that of the store. One that evicts goes back only to its open segment."""
        assert profile.retain["tier"] == of.profile.retain["tier"]
        self.tokens = list(of.tokens)
        self.made_under = dict(of.made_under)
        self._layers, self._lengths, self.store = of.layout
        self._begin_under(profile)
        self._least = of.turn_began
        self._eviction = None  # a detour compresses nothing
        self.decode.freezes = False
        self._untouched = len(of.tokens)
        self._taken: list[list[tuple[Tensor, Tensor] | None]] = []  # from the end of the dialogue to its beginning

    @torch.inference_mode()
    def rewind(self, length: int) -> None:
        """As before; rows that the dialogue has are copied first."""
        kept = length if self._lengths is None else self._lengths.kept(len(self.tokens), length)
        assert kept >= self._least, "what a tier that evicts has frozen is gone"
        if kept < self._untouched:
            with memory_told("keeping the dialogue's cache aside"):
                self._taken.append([self._copied(number, kept) for number in range(len(self.store.layers))])
            self._untouched = kept
        super().rewind(length)

    def reset(self) -> None:
        """A detour does not give the dialogue's memory back."""
        self.rewind(0)

    @torch.inference_mode()
    def end(self) -> None:
        """The store as it was."""
        self.store.rewind(self._untouched)
        while self._taken:
            rows = self._taken.pop()
            for layer, pair in zip(self.store.layers, rows, strict=True):
                if pair is not None:
                    layer.update(*pair)

    def _copied(self, number: int, start: int) -> tuple[Tensor, Tensor] | None:
        """A layer's rows of the tokens from `start` to those of the detour, on the host; None where it has none."""
        layer = self.store.layers[number]
        first, last = start - layer.dropped, self._untouched - layer.dropped
        if layer.keys is None or layer.length <= first:
            return None
        keys, values = (part[:, :, first:last].to("cpu", copy=True) for part in layer.rows())
        return keys, values
