"""The engine: token ids in, events with measurements out. It prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.archive import Archive
from loopserve_cli.engine.aside import Aside
from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.engine.finite import healthy, numbers_error, undone_unless_numbers
from loopserve_cli.engine.forcing import Given, Start, forced
from loopserve_cli.engine.gauges import Gauges, Underway, gauges_of
from loopserve_cli.engine.held import Held
from loopserve_cli.engine.identity import Identity
from loopserve_cli.engine.layerwise import telling
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.markup import find_markup
from loopserve_cli.engine.out_of_memory import whole_or_nothing
from loopserve_cli.engine.prefiller import Prefiller
from loopserve_cli.engine.sampling import Sampler
from loopserve_cli.engine.saved import SavedStore, Told
from loopserve_cli.engine.stepper import CudaCapture, Stepper
from loopserve_cli.engine.store import Store, empty_cache
from loopserve_cli.engine.text_stream import PROMPT_END, TextStream
from loopserve_cli.engine.times import times
from loopserve_cli.errors import ContextLimitError, ModelError, NumbersError
from loopserve_cli.policies.keep import KeepPolicy
from loopserve_cli.policies.prefill import ChosenLines, PrefillTurn, prefill_policy
from loopserve_cli.profile import Profile
from loopserve_cli.profiling import Memory, Meter, Stopwatch
from loopserve_cli.stats import TurnRecord, versions

# Large enough to keep the matrix units busy, small enough to report progress and to be cancelled.
PREFILL_CHUNK = {"cpu": 2048, "cuda": 8192}
# Most answers end long before they must: room for more is made when it is needed.
RESERVED_ANSWER = 1024


class Engine:
    """One model, one dialogue's store, one profile."""

    def __init__(self, loaded: LoadedModel, profile: Profile) -> None:
        """An engine with an empty store."""
        self.model = loaded.model
        self._runs = loaded.runs
        self.tokenizer = loaded.tokenizer
        self.context_limit = loaded.context_limit
        self.model_name = loaded.name
        self._layers = loaded.layers
        # Hears of the bytes of a saved cache.
        self.between_tensors: Told | None = None
        self.quant = loaded.quant
        self._torch_device = loaded.device
        self._stop_ids = loaded.stop_ids
        self._markup = find_markup(loaded.tokenizer)
        # More than one when the model is spread.
        parameters = loaded.model.parameters()
        self._gpus = tuple(dict.fromkeys(p.device for p in parameters if p.device.type == "cuda"))
        self._meter = Meter(self._gpus)
        self._versions = versions()
        self._archive = Archive(loaded)
        self._prefiller = Prefiller(loaded)
        self._underway = Underway()
        # Told within a chunk, layer by layer, how far the prefill is; what that takes is in no timing.
        self.on_progress: Callable[[PrefillProgress], None] | None = None
        self._held = Held(loaded.layers, profile, loaded.handover, self._prefiller.lengths)
        self.keeps_lines = False
        self.lines: ChosenLines | None = None
        # Whether a turn's end says what each head computed; that is read when all stamps are taken.
        self.keeps_heads = False
        # Whether a turn notes where its answer begins, for `force`; that is done while the clock stands still.
        self.keeps_start = False
        self.start: Start | None = None
        self._begin_under(profile)

    @property
    def device(self) -> str:
        """The device that holds the model's input layer, by name."""
        if self._torch_device.type == "cuda":
            return torch.cuda.get_device_name(self._torch_device)
        return self._torch_device.type

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return self._stop_ids

    @property
    def dtype(self) -> str:
        """The dtype the model computes in."""
        return str(self.model.dtype).removeprefix("torch.")

    def memory(self) -> Memory:
        """Memory in use now."""
        return self._meter.read()

    def gauges(self) -> Gauges:
        """Figures of this moment, also within a turn; on a GPU the prefill's are known once it is done."""
        return gauges_of(self._held, self._meter, self._underway.chosen(self._meter))

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for keys and values, wherever they are."""
        return self._held.bytes

    @property
    def tokens(self) -> list[int]:
        """The tokens whose keys and values are stored."""
        return self._held.tokens

    @property
    def made_under(self) -> dict[str, str]:
        """Under which policies, as text, what is stored was computed, and the names of their profiles."""
        return self._held.made_under

    @property
    def made_otherwise(self) -> list[str]:
        """The names of other profiles under which some of what is stored was computed: its keys are theirs."""
        return self._held.made_otherwise

    @property
    def _store(self) -> Store:
        return self._held.store

    def set_profile(self, profile: Profile) -> None:
        """Use another profile from the next turn on. The store stays; what one that evicts lacks is fed again."""
        if profile == self.profile:
            return
        try:
            self._held.use(profile)
        except BaseException:
            self._begin_under(self.profile, self._stepper.refusal)
            raise
        self._begin_under(profile, self._stepper.refusal)

    def _begin_under(self, profile: Profile, refusal: str | None = None) -> None:
        """What belongs to a profile and a store: captured steps, unless there is a `refusal` to capture the model's."""
        self.profile = profile
        self.policy = prefill_policy(profile.prefill)
        # A model on several GPUs moves data between them, which is not captured.
        capture = CudaCapture if len(self._gpus) == 1 else None
        self._stepper = Stepper(self._runs, self._store, self._torch_device, capture, refusal)

    @property
    def keep(self) -> KeepPolicy:
        """Which keys decoding reads."""
        return self._held.decode.policy

    @property
    def freezes(self) -> bool:
        """Whether what a turn has said is compressed for good when the next begins (tier evict)."""
        return self._held.freezes

    @property
    def turn_began(self) -> int:
        """How many tokens came before the turn that is not frozen yet (tier evict); else 0."""
        return self._held.turn_began

    def begin_segment(self) -> None:
        """What is fed from now on is a turn of its own, for a tier that evicts turn by turn."""
        self._held.begin_segment()

    def new_prefill(self) -> PrefillTurn:
        """What the next turn's prefill goes through."""
        return PrefillTurn(self.policy, self._layers, ChosenLines(self._layers) if self.keeps_lines else None)

    def _note_lines(self, prefill: PrefillTurn) -> None:
        """Have `lines` be those of this prefill if it chose any; only where `keeps_lines` is set. Waits for devices."""
        if prefill.chosen is not None and prefill.chosen.any:
            prefill.chosen.settle()
            self.lines = prefill.chosen

    def read_between(self, cuts: Sequence[int]) -> list[list[float] | None] | None:
        """Of every layer, how many keys per head the last step read of the tokens between each two of the cuts.

        A layer is None where it reads everything, or what it holds cannot be told by tokens any more. All of it is
        None where the last step is not the last thing that happened: nothing was decoded since.
        """
        if not self._held.decode.is_of_now:
            return None
        return [self._held.read_between(layer, cuts) for layer in range(self._layers)]

    @contextmanager
    def aside(self, profile: Profile | None = None, within_turn: bool = False) -> Iterator[None]:
        """Inside, turns may be taken, under another profile of the same tier; afterwards all is held as before.

        Under a tier that evicts only under the same profile, and whoever asks must rewind: what it has frozen stays.
        Not so `within_turn`, where nothing is rewound that came before the last turn, and no turn is begun.
        """
        before = self._held, self.profile, self.policy, self._stepper
        keeps, lines, underway = self.keeps_lines, self.lines, self._underway
        held = self._held if self.freezes and not within_turn else Aside(self._held, profile or self.profile)
        assert profile is None or isinstance(held, Aside)
        self._held, self.keeps_lines = held, False
        try:
            if isinstance(held, Aside):
                self._begin_under(held.profile, self._stepper.refusal)
            if profile is None:
                self.policy = before[2]
            yield
        finally:
            self.keeps_lines, self.lines, self._underway = keeps, lines, underway
            if isinstance(held, Aside):
                self._held, self.profile, self.policy, self._stepper = before
                held.end()

    def rewind(self, length: int) -> None:
        """Return to the state after `length` tokens, exactly; a tier that evicts may return to one before it."""
        self._held.rewind(length)
        if self.lines is not None and length < self.lines.keys:
            self.lines = None

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""
        self.lines = self.start = None
        self._held.reset()
        self._begin_under(self.profile, self._stepper.refusal)
        empty_cache(self._torch_device)

    @property
    def identity(self) -> Identity:
        """What a saved store must agree with to be this model's."""
        return self._archive.identity

    def save(self, path: Path) -> int:
        """Write what is stored to a file, all of it or nothing; returns its bytes.

        Raises LoopserveError where there is nothing to save or something else would be lost, OSError when the disk
        refuses.
        """
        return self._archive.save(path, self._held, self.between_tensors)

    def saved(self, path: Path) -> SavedStore:
        """The store in a file, for `restore`; raises LoopserveError, in one line, for one that is not this engine's."""
        return self._archive.open(path, self._held)

    def restore(self, saved: SavedStore) -> None:
        """Hold what a file holds, in place of what was stored; raises LoopserveError, and holds nothing, if that fails.

        The state is that after the last saved token, exactly, under any profile that does not evict.
        """
        self.reset()
        self._store.reserve(self._room_for(len(saved.tokens) + RESERVED_ANSWER))
        self._archive.restore(saved, self._held, self.between_tensors)

    def feed(self, ids: list[int]) -> None:
        """Prefill without generating: a recorded answer, or a resumed dialogue. All of it, or nothing.

        Nobody is told how far it is: within a turn, whose time this may be part of, that would count.
        """
        tell, self.on_progress = self.on_progress, None
        try:
            for _ in self.feed_progress(ids):
                pass
        finally:
            self.on_progress = tell

    def feed_progress(self, ids: list[int]) -> Iterator[PrefillProgress]:
        """As `feed`, with progress at once and after every chunk; closed early, it keeps the chunks already fed."""
        self._check_known(ids)
        self._check_context(len(ids))
        ids = self._with_stale(ids)
        self._store.reserve(len(self.tokens) + len(ids))
        prefill = self.new_prefill()
        watching = self._held.decode if self.freezes else None
        began, watch = len(self.tokens), Stopwatch(self._gpus)
        with undone_unless_numbers(self._held, began):
            yield PrefillProgress(0, len(ids), began)
            for chunk, done in self._chunks(ids, prefill):
                progress = PrefillProgress(done, len(ids), began)
                self._tell_layers(prefill, len(chunk), progress, watch, 0.0)
                logits = self._prefiller.feed(self._held, chunk, prefill, watching)
                if done == len(ids) and not bool(healthy(logits).all()):
                    raise self._no_numbers()
                yield progress
        self._note_lines(prefill)

    def turn(
        self,
        ids: list[int],
        sampling: SamplingOptions,
        cancelled: Callable[[], bool] = lambda: False,
        submitted: float | None = None,
    ) -> Iterator[Event]:
        """Prefill `ids` after what is stored, then generate until something ends it.

        Yields `PrefillProgress` at once and per chunk, `Token` per token, and one `TurnDone`. `cancelled` is asked
        between chunks and between tokens. `submitted` is the `time.perf_counter` stamp TTFT counts from.
        The last token of an answer is not in the store: it is fed with the next turn, which begins with it.
        Raises ContextLimitError, before anything is fed, when `ids` and one token do not fit, ModelError for an id
        that the model does not know, NumbersError for logits that are none: the turn is then taken back.
        """
        with undone_unless_numbers(self._held, len(self.tokens)):
            try:
                yield from self._turn(ids, sampling, cancelled, submitted)
            finally:
                self._stepper.let_go()  # the reader may close the turn while the next step runs

    def _turn(
        self, ids: list[int], sampling: SamplingOptions, cancelled: Callable[[], bool], submitted: float | None
    ) -> Iterator[Event]:
        """The turn; on a NumbersError what it has fed is still there."""
        assert ids, "a turn needs at least one new token"
        self._check_known(ids)
        self._check_context(len(ids) + 1)
        watch = Stopwatch(self._gpus, submitted)
        self._stepper.replays = 0
        self.start = None
        held = len(self.tokens)
        ids = self._with_stale(ids)
        cached = len(self.tokens)
        rolled_back = held - cached
        self._meter.reset_peak()
        sampler = Sampler(sampling, self._torch_device, self.tokens + ids)
        self._store.reserve(self._room_for(cached + len(ids) + min(sampling.max_new_tokens, RESERVED_ANSWER)))

        self.begin_segment()
        prefill, decode = self.new_prefill(), self._held.decode
        self._underway = Underway(prefill)
        prefill_began = watch.ms()
        with watch.paused():
            yield PrefillProgress(0, len(ids), cached, None if self._gpus else 0.0)
        logits = None
        for chunk, done in self._chunks(ids, prefill):
            if cancelled():
                break
            progress = PrefillProgress(done, len(ids), cached)
            self._tell_layers(prefill, len(chunk), progress, watch, prefill_began)
            logits = self._prefiller.feed(self._held, chunk, prefill, decode)
            with watch.paused():
                yield replace(progress, ms=None if self._gpus else watch.now() - prefill_began)
        self._underway.prefilled = True
        prefilled = len(self.tokens) - cached
        prefill_ms = watch.ms() - prefill_began

        stream = TextStream(self.tokenizer, sampling.stop, self._markup, self.tokens[-PROMPT_END:])
        stamps: list[float] = []
        output: list[int] = []
        finish = None if prefilled == len(ids) else "cancelled"
        drawn = None if logits is None else sampler.pick(logits)
        while finish is None:
            if cancelled():
                finish = "cancelled"
                break
            assert drawn is not None
            token = sampler.read(drawn)
            if token is None:
                raise self._no_numbers()
            stamps.append(watch.now())  # the token is here; what else the device was asked for is the next one's
            output.append(token)
            text = "" if token in self._stop_ids else stream.push(token)
            finish = self._finish_reason(token, stream, len(output), sampling)
            if finish:
                text = stream.end(text)
            held = len(self.tokens)
            stale = self._prefiller.lengths is not None and self._prefiller.lengths.stale_in_step(held)
            ahead = finish is None and not stale and self._stepper.ready(decode, sampler)
            if ahead:
                with whole_or_nothing(self._held, self._torch_device):
                    drawn = self._stepper.launch(drawn, held, decode, sampler)
            with watch.paused(not ahead):
                if self.keeps_start and len(output) == 1:
                    assert logits is not None
                    self.start = Start(held, logits, decode.noted(), decode.captures)
                yield Token(token, text, stream.reasoning, stamps[-1])
            if finish is not None or cancelled():
                finish = finish or "cancelled"
                self._stepper.let_go()
            elif stale:
                logits, decode = self._read_again([token])
                rolled_back += held
                drawn = sampler.pick(logits)
            else:
                with whole_or_nothing(self._held, self._torch_device):
                    if not ahead:
                        drawn = self._stepper.launch(drawn, held, decode, sampler)
                    self._stepper.count()
                    self._held.append([token])
        stream.flush()

        e2e_ms = stamps[-1] if stamps else watch.ms()
        chosen = asdict(prefill.report()) if prefilled else {}
        record = TurnRecord(
            **self._facts(),
            **times(stamps, e2e_ms, prefill_began, prefill_ms, prefilled),
            **chosen,
            **asdict(decode.report(self._store.length)),
            seed=sampling.seed,
            tokens_new=prefilled,
            tokens_cached=cached,
            tokens_rolled_back=rolled_back,
            tokens_output=len(output),
            tokens_logical=cached + prefilled + len(output),
            tokens_reasoning=stream.tokens_reasoning,
            output_text=stream.text,
            reasoning_text=stream.thoughts or None,
            first_answer_ms=None if stream.first_answer is None else stamps[stream.first_answer],
            finish_reason=finish,
            alpha=self.policy.alpha,
            graph_replays=self._stepper.replays,
            graph_refusal=self._stepper.refusal,
        )
        self._note_lines(prefill)
        yield TurnDone(record, prefill.heads() if self.keeps_heads else None)

    def force(self, ids: Sequence[int], see: Callable[[Tensor], None]) -> int:
        """Decode `ids` as the answer of the turn that just ended, under its profile, and leave all as it was.

        `see` gets the logits [1, V] that each of them would have been drawn from, valid until it returns. How many
        that were: fewer than `ids` where the context ends, or positions change (see `rotary`), 0 where they have.
        Needs `keeps_start`. Raises LoopserveError where memory runs out.
        """
        start, lengths = self.start, self._prefiller.lengths
        assert start is not None and ids, "no answer was begun"
        if lengths is not None and lengths.kept(len(self.tokens), start.tokens) < start.tokens:
            return 0
        if self.context_limit is not None:
            ids = ids[: self.context_limit - start.tokens]
        if lengths is not None:  # a step after the last of them would make all keys stale
            ids = ids[: next((n for n in range(1, len(ids)) if lengths.stale_in_step(start.tokens + n - 1)), len(ids))]
        with self.aside(within_turn=True):
            forced(start, Given(ids, self._torch_device, see), self._held, self._stepper)
        return len(ids)

    def _tell_layers(
        self, prefill: PrefillTurn, chunk: int, at_end: PrefillProgress, watch: Stopwatch, began: float
    ) -> None:
        """Have the next chunk's layers tell how far it is. Not on a GPU, which is asked for all long before it ends."""
        if self.on_progress is not None and not self._gpus:
            prefill.at_layer = telling(self.on_progress, chunk, self._layers, at_end, watch, began)

    def _no_numbers(self) -> NumbersError:
        return numbers_error(self.model_name, self.dtype, self.quant)

    def _with_stale(self, ids: list[int]) -> list[int]:
        """The ids to feed: all of the dialogue where what is held goes stale as it gets that long."""
        held, lengths = self.tokens, self._prefiller.lengths
        if lengths is None or not lengths.stale(len(held), len(held) + len(ids)):
            return ids
        everything = [*held, *ids]
        self._held.rewind(0)
        return everything

    def _read_again(self, ids: list[int]) -> tuple[Tensor, DecodeTurn]:
        """Feed all that is held anew, and `ids` after it; the last one's logits, and the decoding that goes on."""
        everything = [*self.tokens, *ids]
        self._held.rewind(0)
        self.begin_segment()
        prefill, decode = self.new_prefill(), self._held.decode
        for chunk, _ in self._chunks(everything, prefill):
            logits = self._prefiller.feed(self._held, chunk, prefill, decode)
        return logits, decode

    def _finish_reason(self, token: int, stream: TextStream, count: int, sampling: SamplingOptions) -> str | None:
        """Why the answer ends with this token, or None when it goes on."""
        if token in self._stop_ids:
            return "stop"
        if stream.stopped:
            return "stop_string"
        if count >= sampling.max_new_tokens:
            return "length"
        # The token just drawn is not stored yet: it and its successor must fit.
        if self.context_limit is not None and len(self.tokens) + 2 > self.context_limit:
            return "context"
        return None

    def _facts(self) -> dict[str, Any]:
        """The record's fields that do not depend on how the turn went: what runs where, and its memory now."""
        memory = asdict(self._meter.read())
        del memory["free_device_bytes"]
        return memory | {
            "profile": self.profile.name,
            "model": self.model_name,
            "device": self.device,
            "dtype": self.dtype,
            "quant": self.quant,
            "step_kernels": "eager" if self._runs is self.model else "fused",
            "keys_stored": self._store.length,
            "kv_store_device_bytes": self._store.device_bytes,
            "kv_store_host_bytes": self._store.host_bytes,
            "kv_used_device_bytes": self._store.used_bytes(host=False),
            "kv_used_host_bytes": self._store.used_bytes(host=True),
            "versions": self._versions,
        }

    def _check_known(self, ids: list[int]) -> None:
        """Refuse a token that the model has no embedding for: a tokenizer may have been given more of them."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        if ids and max(ids) >= rows:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ModelError(
                f"{self.model_name}: its tokenizer has the token {token!r}, but the model has embeddings for only the "
                f"first {rows:,} tokens; use the tokenizer that the model was made with"
            )

    def _check_context(self, new: int) -> None:
        """Refuse what the model's context cannot hold."""
        needed = len(self.tokens) + new
        if self.context_limit is not None and needed > self.context_limit:
            raise ContextLimitError(
                f"the dialogue would be {needed} tokens long, but {self.model_name} reads at most "
                f"{self.context_limit}; shorten the message, or begin anew (in a chat: /undo or /clear)"
            )

    def _room_for(self, length: int) -> int:
        return length if self.context_limit is None else min(length, self.context_limit)

    def _chunks(self, ids: list[int], prefill: PrefillTurn) -> Iterator[tuple[list[int], int]]:
        """The ids in prefill chunks, each with how many are fed after it; the prefill is told which is the last."""
        size = PREFILL_CHUNK.get(self._torch_device.type, 2048)
        for chunk, done in self._prefiller.chunks(ids, len(self.tokens), prefill, size):
            prefill.last_chunk = done == len(ids)
            yield chunk, done
