"""Tokens that are prefilled without an answer: a recorded one, or a resumed dialogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.events import PrefillProgress
from loopserve_cli.engine.finite import healthy, undone_unless_numbers
from loopserve_cli.engine.layerwise import LayerProgress, Tell
from loopserve_cli.engine.runtime import Runtime
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.timers import Stopwatch


class Feed:
    """One feeding, under way in `progress`; `prefill` is what it goes through."""

    def __init__(
        self, runtime: Runtime, state: DialogueState, new_prefill: Callable[[], PrefillTurn], ids: list[int]
    ) -> None:
        """Nothing is fed yet; raises ContextLimitError or ModelError where `ids` cannot be."""
        runtime.limits.check_known(ids)
        runtime.limits.check_length(len(state.tokens) + len(ids))
        self._runtime, self._state = runtime, state
        self._ids = runtime.prefiller.with_stale(state, ids)
        state.store.reserve(len(state.tokens) + len(self._ids))
        self.prefill = new_prefill()

    def progress(self, tell: Tell | None) -> Iterator[PrefillProgress]:
        """Feed, with progress at once and after every chunk, which `tell` hears layer by layer.

        Raises NumbersError for logits that are none; what was fed is then taken back.
        """
        runtime, state, ids = self._runtime, self._state, self._ids
        watching = state.decode if state.freezes else None
        began, within = len(state.tokens), LayerProgress(tell, runtime.loaded.layers, Stopwatch(runtime.gpus))
        with undone_unless_numbers(state, began):
            yield PrefillProgress(0, len(ids), began)
            for progress, logits in runtime.prefiller.feed_all(state, ids, self.prefill, watching, within):
                if progress.done == len(ids) and not bool(healthy(logits).all()):
                    raise runtime.no_numbers()
                yield progress
