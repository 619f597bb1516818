"""One turn: its new tokens are prefilled, an answer is generated from them, and what both took is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from torch import Tensor

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.events import PrefillProgress, Token
from loopserve_cli.engine.forcing import AnswerStart
from loopserve_cli.engine.layerwise import LayerProgress, Tell
from loopserve_cli.engine.out_of_memory import whole_or_nothing
from loopserve_cli.engine.runtime import Runtime
from loopserve_cli.engine.sampling import Sampler
from loopserve_cli.engine.stepper import Stepper
from loopserve_cli.engine.text_stream import PROMPT_END, TextStream
from loopserve_cli.engine.times import times
from loopserve_cli.heads import HeadFigures
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.stats import TurnRecord
from loopserve_cli.timers import Stopwatch

# Most answers end long before they must: room for more is made when it is needed.
RESERVED_ANSWER = 1024


class Turn:
    """A turn that is under way: `prefilling`, then `answering`, each to its end, then `record`.

    On a NumbersError what it has fed is still there. `start` is where the answer began, if `keeps_start` is set; that
    is noted while the clock stands still.
    """

    def __init__(
        self,
        runtime: Runtime,
        state: DialogueState,
        stepper: Stepper,
        new_prefill: Callable[[], PrefillTurn],
        ids: list[int],
        sampling: SamplingOptions,
        submitted: float | None = None,
    ) -> None:
        """Begin it with new `ids`; raises ContextLimitError or ModelError where they cannot be fed.

        `new_prefill` makes what each reading of the dialogue goes through: a second one where keys go stale.
        """
        assert ids, "a turn needs at least one new token"
        runtime.limits.check_known(ids)
        runtime.limits.check_length(len(state.tokens) + len(ids) + 1)
        self._watch = Stopwatch(runtime.gpus, submitted)
        self._runtime, self._state, self._stepper, self._new_prefill = runtime, state, stepper, new_prefill
        self._sampling = sampling
        self.keeps_start = False
        self.start: AnswerStart | None = None
        stepper.replays = 0
        before = len(state.tokens)
        self._ids = runtime.prefiller.with_stale(state, ids)
        self._cached = len(state.tokens)
        self._rolled_back = before - self._cached
        runtime.meter.reset_peak()
        self._sampler = Sampler(sampling, runtime.device, state.tokens + self._ids)
        room = self._cached + len(self._ids) + min(sampling.max_new_tokens, RESERVED_ANSWER)
        state.store.reserve(runtime.limits.within(room))

        state.begin_segment()
        self.prefill, self._decode = new_prefill(), state.decode
        self._began = self._watch.ms()
        self._prefilled = 0
        self._prefill_ms = 0.0
        self._logits: Tensor | None = None
        self._stamps: list[float] = []
        self._finish: str | None = None

    def prefilling(self, cancelled: Callable[[], bool], tell: Tell | None) -> Iterator[PrefillProgress]:
        """Feed the new tokens, with progress at once and after every chunk; `tell` hears it layer by layer."""
        watch, known = self._watch, not self._runtime.gpus
        with watch.paused():
            yield PrefillProgress(0, len(self._ids), self._cached, 0.0 if known else None)
        within = LayerProgress(tell, self._runtime.loaded.layers, watch, self._began)
        chunks = self._runtime.prefiller.feed_all(self._state, self._ids, self.prefill, self._decode, within, cancelled)
        for progress, logits in chunks:
            self._logits = logits
            with watch.paused():
                yield replace(progress, ms=watch.now() - self._began if known else None)
        self._prefilled = len(self._state.tokens) - self._cached
        self._prefill_ms = watch.ms() - self._began
        if self._prefilled < len(self._ids):
            self._finish = "cancelled"

    def answering(self, cancelled: Callable[[], bool]) -> Iterator[Token]:
        """Generate until something ends it; where a captured step is ready it runs while its token is handed out."""
        runtime, state, stepper, sampler, watch = self._runtime, self._state, self._stepper, self._sampler, self._watch
        decode, logits, lengths = self._decode, self._logits, runtime.prefiller.lengths
        stream = self._stream = TextStream(
            runtime.loaded.tokenizer, self._sampling.stop, runtime.markup, state.tokens[-PROMPT_END:]
        )
        stamps, finish = self._stamps, self._finish
        drawn = None if logits is None else sampler.pick(logits)
        while finish is None:
            if cancelled():
                finish = "cancelled"
                break
            assert drawn is not None
            token = sampler.read(drawn)
            if token is None:
                raise runtime.no_numbers()
            stamps.append(watch.now())  # the token is here; what else the device was asked for is the next one's
            text = "" if token in runtime.stop_ids else stream.push(token)
            finish = self._finish_reason(token, stream)
            if finish:
                text = stream.end(text)
            length = len(state.tokens)
            stale = lengths is not None and lengths.stale_in_step(length)
            ahead = finish is None and not stale and stepper.ready(decode, sampler)
            if ahead:
                with whole_or_nothing(state, runtime.device):
                    drawn = stepper.launch(drawn, length, decode, sampler)
            with watch.paused(not ahead):
                if self.keeps_start and len(stamps) == 1:
                    assert logits is not None
                    self.start = AnswerStart(length, logits, decode.observations(), decode.captures)
                yield Token(token, text, stream.reasoning, stamps[-1])
            if finish is not None or cancelled():
                finish = finish or "cancelled"
                stepper.let_go()
            elif stale:
                logits = self._read_again([token])
                decode = self._decode
                drawn = sampler.pick(logits)
            else:
                with whole_or_nothing(state, runtime.device):
                    if not ahead:
                        drawn = stepper.launch(drawn, length, decode, sampler)
                    stepper.count()
                    state.append([token])
        self._finish = finish
        stream.flush()

    def heads(self) -> HeadFigures | None:
        """What each head computed and read; None where none left anything out. Waits for the devices."""
        found, read = self.prefill.heads(), self._decode.shares()
        if read is None:
            return found
        return replace(found or HeadFigures(), read_layers=tuple(read), read=tuple(read.values()))

    def record(self) -> TurnRecord:
        """What the turn was and took; waits for the devices."""
        stamps, stream, store = self._stamps, self._stream, self._state.store
        e2e_ms = stamps[-1] if stamps else self._watch.ms()
        chosen = asdict(self.prefill.report()) if self._prefilled else {}
        return TurnRecord(
            **self._runtime.facts(),
            **store.figures(),
            **times(stamps, e2e_ms, self._began, self._prefill_ms, self._prefilled),
            **chosen,
            **asdict(self._decode.report(store.length)),
            profile=self._state.profile.name,
            seed=self._sampling.seed,
            tokens_new=self._prefilled,
            tokens_cached=self._cached,
            tokens_rolled_back=self._rolled_back,
            tokens_output=len(stamps),
            tokens_logical=self._cached + self._prefilled + len(stamps),
            tokens_reasoning=stream.tokens_reasoning,
            output_text=stream.text,
            reasoning_text=stream.thoughts or None,
            first_answer_ms=None if stream.first_answer is None else stamps[stream.first_answer],
            finish_reason=self._finish,
            alpha=self.prefill.policy.alpha,
            graph_replays=self._stepper.replays,
            graph_refusal=self._stepper.refusal,
        )

    def _read_again(self, ids: list[int]) -> Tensor:
        """Feed all that is held anew, and `ids` after it; the last one's logits. Another decoding goes on."""
        state = self._state
        everything = [*state.tokens, *ids]
        self._rolled_back += len(state.tokens)
        state.rewind(0)
        state.begin_segment()
        prefill, self._decode = self._new_prefill(), state.decode
        *_, (_, logits) = self._runtime.prefiller.feed_all(state, everything, prefill, self._decode)
        return logits

    def _finish_reason(self, token: int, stream: TextStream) -> str | None:
        """Why the answer ends with this token, or None when it goes on."""
        if token in self._runtime.stop_ids:
            return "stop"
        if stream.stopped:
            return "stop_string"
        if len(self._stamps) >= self._sampling.max_new_tokens:
            return "length"
        # The token just drawn is not stored yet: it and its successor must fit.
        return None if self._runtime.limits.has_room(len(self._state.tokens) + 2) else "context"
