"""Feeds the model many tokens at a time: what a turn or a recorded answer brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from loopserve_cli.engine.chunks import choosing_chunk, chunks, plain_chunk, widest
from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.events import PrefillProgress
from loopserve_cli.engine.host_memory import keep_freed
from loopserve_cli.engine.layerwise import LayerProgress
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.model_call import next_logits, positions
from loopserve_cli.engine.out_of_memory import whole_or_nothing
from loopserve_cli.engine.rotary import forget_longest, length_dependence
from loopserve_cli.errors import ModelError
from loopserve_cli.policies.prefill import PrefillTurn


class Prefiller:
    """One model; what it reads goes into the store that is given."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Nothing is fed yet."""
        self._model = loaded.model
        self._runs = loaded.runs
        self._name = loaded.name
        self._device = loaded.device
        self.lengths = length_dependence(loaded.model.config)
        if loaded.device.type == "cpu":
            keep_freed()

    def with_stale(self, state: DialogueState, ids: list[int]) -> list[int]:
        """The ids to feed: all of the dialogue where what is held goes stale as it gets that long, and is forgotten."""
        before = state.tokens
        if self.lengths is None or not self.lengths.stale(len(before), len(before) + len(ids)):
            return ids
        everything = [*before, *ids]
        state.rewind(0)
        return everything

    def chunks(self, ids: list[int], held: int, prefill: PrefillTurn) -> Iterator[tuple[list[int], int]]:
        """The ids in chunks, each with how many are fed after it; they are longer where lines are chosen.

        The first is so long that the model sees which positions a sequence of that length has; of the last the prefill
        is told that it is.
        """
        size = plain_chunk(self._device)
        if prefill.policy.gate.opens(len(ids), held + len(ids)):
            size = max(size, choosing_chunk(self._device, self._model.dtype, widest(self._model.config)))
        if self.lengths is not None and not held and self.lengths.at_once(len(ids)):
            size = max(size, self.lengths.at_once(len(ids)))
            forget_longest(self._model)
        for chunk, done in chunks(ids, size):
            prefill.last_chunk = done == len(ids)
            yield chunk, done

    def feed_all(
        self,
        state: DialogueState,
        ids: list[int],
        prefill: PrefillTurn,
        decode: DecodeTurn | None,
        within: LayerProgress | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[PrefillProgress, Tensor]]:
        """Feed all ids chunk by chunk, until `cancelled`; after each how far that is, and its last token's logits."""
        before = len(state.tokens)
        for chunk, done in self.chunks(ids, before, prefill):
            if cancelled():
                return
            progress = PrefillProgress(done, len(ids), before)
            if within is not None:
                within.follow(prefill, len(chunk), progress)
            yield progress, self.feed(state, chunk, prefill, decode)

    def feed(self, state: DialogueState, chunk: list[int], prefill: PrefillTurn, decode: DecodeTurn | None) -> Tensor:
        """Feed one chunk, all of it or nothing, while `decode` watches; the logits of its last token, [1, V].

        Raises ModelError for a model that does not let its attention be told what to do, LoopserveError when memory
        runs out.
        """
        with whole_or_nothing(state, self._device):
            logits = self._forward(state, chunk, prefill, decode)
            if not prefill.layers:
                raise ModelError(
                    f"{self._name}: this architecture keeps keyword arguments from its attention, so loopserve "
                    "cannot tell it what to compute; use another model"
                )
            state.append(chunk)
        return logits

    @torch.inference_mode()
    def _forward(self, state: DialogueState, ids: list[int], prefill: PrefillTurn, decode: DecodeTurn | None) -> Tensor:
        """Run the model over new ids at their positions."""
        new = torch.tensor([ids], device=self._device)
        places = positions(len(state.tokens), len(ids), self._device)
        return next_logits(self._runs, new, places, state.store, prefill=prefill, decode=decode)
