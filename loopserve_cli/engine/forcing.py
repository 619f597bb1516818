"""An answer that is given, decoded as if the model had said it: what it would have said instead, token by token.

The steps are those of generation: the keep policy chooses when and by what it would have chosen, and the distribution
before each token is what a sampler would have drawn from. See the fidelity of a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.layer_decoding import Observation
from loopserve_cli.engine.out_of_memory import whole_or_nothing
from loopserve_cli.engine.rotary import LengthDependence
from loopserve_cli.engine.stepper import Stepper


@dataclass(frozen=True, slots=True)
class AnswerStart:
    """A turn after its prefill and before its first step: tokens held, the logits [1, V], and what decoding saw."""

    tokens: int
    logits: Tensor
    observations: Mapping[int, Observation]
    captures: bool


class ForcedTokens:
    """Draws the tokens it was given, one after the other, whatever the logits are; `see` gets those, [1, V].

    They are valid until `see` returns: a captured step writes the next ones in their place.
    """

    plain = False

    def __init__(self, ids: Sequence[int], device: torch.device, see: Callable[[Tensor], None]) -> None:
        """Nothing is drawn yet."""
        self.ids = list(ids)
        self.device = device
        self._on_device = torch.tensor([self.ids], dtype=torch.int64, device=device)
        self._see = see
        self._drawn = 0

    def pick(self, logits: Tensor) -> Tensor:
        """The next of the given tokens, int64 [1, 1]."""
        self._see(logits)
        token = self._on_device[:, self._drawn : self._drawn + 1]
        self._drawn += 1
        return token


def forcible(
    ids: Sequence[int], begins: int, held: int, limit: int | None, lengths: LengthDependence | None
) -> Sequence[int]:
    """As many of an answer's ids as can be forced after `begins` tokens where `held` are held: all that fit.

    `limit` is how many tokens the model reads. None where the keys of the answer's start have gone stale, and none
    after a step that would make them so.
    """
    if lengths is not None and lengths.kept(held, begins) < begins:
        return ()
    ids = ids if limit is None else ids[: limit - begins]
    if lengths is None:
        return ids
    return ids[: next((n for n in range(1, len(ids)) if lengths.stale_in_step(begins + n - 1)), len(ids))]


def forced(start: AnswerStart, given: ForcedTokens, state: DialogueState, stepper: Stepper) -> None:
    """Go back to the turn's start and decode what is given; its last token is not fed, as in generation."""
    state.rewind(start.tokens)
    decode = state.decode = DecodeTurn(state.decode.policy, state.store)
    decode.recall(start.observations, start.captures)
    drawn = given.pick(start.logits)
    for token in given.ids[:-1]:
        with whole_or_nothing(state, given.device):
            drawn = stepper.launch(drawn, len(state.tokens), decode, given)
            stepper.count()
            state.append([token])
