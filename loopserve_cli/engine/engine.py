"""The engine: token ids in, events with measurements out. It prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.archive import Archive
from loopserve_cli.engine.aside import Aside
from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.events import Event, PrefillProgress, TurnDone
from loopserve_cli.engine.feed import Feed
from loopserve_cli.engine.finite import undone_unless_numbers
from loopserve_cli.engine.forcing import AnswerStart, ForcedTokens, forced, forcible
from loopserve_cli.engine.gauges import Gauges, PrefillFigures, gauges_of
from loopserve_cli.engine.identity import Identity
from loopserve_cli.engine.layerwise import Tell
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.rope import find_rope
from loopserve_cli.engine.runtime import Runtime
from loopserve_cli.engine.saved import SavedStore, Told
from loopserve_cli.engine.stepper import Stepper
from loopserve_cli.engine.store import Store, empty_cache
from loopserve_cli.engine.turn import RESERVED_ANSWER, Turn
from loopserve_cli.memory_meter import Memory
from loopserve_cli.policies.keep import KeepPolicy
from loopserve_cli.policies.prefill import ChosenLines, PrefillTurn, prefill_policy
from loopserve_cli.profile import Profile


class Engine:
    """One model, one dialogue's store, one profile."""

    def __init__(self, loaded: LoadedModel, profile: Profile) -> None:
        """An engine with an empty store."""
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.model_name = loaded.name
        self.quant = loaded.quant
        self._layers = loaded.layers
        self._runtime = Runtime(loaded)
        self._prefiller = self._runtime.prefiller
        self._archive = Archive(loaded)
        # Hears of the bytes of a saved cache.
        self.between_tensors: Told | None = None
        # Told within a chunk, layer by layer, how far the prefill is; what that takes is in no timing.
        self.on_progress: Tell | None = None
        self.keeps_lines = False
        self.lines: ChosenLines | None = None
        # Whether a turn's end says what each head computed; that is read when all stamps are taken.
        self.keeps_heads = False
        # Whether a turn notes where its answer begins, for `force`.
        self.keeps_start = False
        self.start: AnswerStart | None = None
        self._prefill_figures = PrefillFigures()
        rope = find_rope(loaded.model)
        self._state = DialogueState(loaded.layers, profile, loaded.handover, self._prefiller.lengths, rope)
        self._begin_under(profile)

    @property
    def device(self) -> str:
        """The device that holds the model's input layer, by name."""
        return self._runtime.device_name

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return self._runtime.stop_ids

    @property
    def dtype(self) -> str:
        """The dtype the model computes in."""
        return self._runtime.dtype

    @property
    def context_limit(self) -> int | None:
        """How many tokens the model reads at most; None where that is not known."""
        return self._runtime.limits.context

    @context_limit.setter
    def context_limit(self, tokens: int | None) -> None:
        self._runtime.limits.context = tokens

    def memory(self) -> Memory:
        """Memory in use now."""
        return self._runtime.meter.read()

    def gauges(self) -> Gauges:
        """Figures of this moment, also within a turn; on a GPU the prefill's are known once it is done."""
        meter = self._runtime.meter
        return gauges_of(self._state, meter, self._prefill_figures.chosen(meter))

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for keys and values, wherever they are."""
        return self._state.bytes

    @property
    def tokens(self) -> list[int]:
        """The tokens whose keys and values are stored."""
        return self._state.tokens

    @property
    def made_under(self) -> dict[str, str]:
        """Under which policies, as text, what is stored was computed, and the names of their profiles."""
        return self._state.made_under

    @property
    def made_otherwise(self) -> list[str]:
        """The names of other profiles under which some of what is stored was computed: its keys are theirs."""
        return self._state.made_otherwise

    @property
    def _store(self) -> Store:
        return self._state.store

    def set_profile(self, profile: Profile) -> None:
        """Use another profile from the next turn on. The store stays; what one that evicts lacks is fed again."""
        if profile == self.profile:
            return
        try:
            self._state.use(profile)
        except BaseException:
            self._begin_under(self.profile, self._stepper.refusal)
            raise
        self._begin_under(profile, self._stepper.refusal)

    def _begin_under(self, profile: Profile, refusal: str | None = None) -> None:
        """What belongs to a profile and a store: captured steps, unless there is a `refusal` to capture the model's."""
        runtime = self._runtime
        self.profile, self.policy = profile, prefill_policy(profile.prefill)
        self._stepper = Stepper(runtime.runs, self._store, runtime.device, runtime.capture, refusal)

    @property
    def keep(self) -> KeepPolicy:
        """Which keys decoding reads."""
        return self._state.decode.policy

    @property
    def freezes(self) -> bool:
        """Whether what a turn has said is compressed for good when the next begins (tier evict)."""
        return self._state.freezes

    @property
    def turn_began(self) -> int:
        """How many tokens came before the turn that is not frozen yet (tier evict); else 0."""
        return self._state.turn_began

    def begin_segment(self) -> None:
        """What is fed from now on is a turn of its own, for a tier that evicts turn by turn."""
        self._state.begin_segment()

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
        if not self._state.decode.is_of_now:
            return None
        return [self._state.read_between(layer, cuts) for layer in range(self._layers)]

    @contextmanager
    def aside(self, profile: Profile | None = None, within_turn: bool = False) -> Iterator[None]:
        """Inside, turns may be taken, under another profile of the same tier; afterwards all is held as before.

        Under a tier that evicts only under the same profile, and whoever asks must rewind: what it has frozen stays.
        Not so `within_turn`, where nothing is rewound that came before the last turn, and no turn is begun.
        """
        before = self._state, self.profile, self.policy, self._stepper
        keeps, lines, figures = self.keeps_lines, self.lines, self._prefill_figures
        state = self._state if self.freezes and not within_turn else Aside(self._state, profile or self.profile)
        assert profile is None or isinstance(state, Aside)
        self._state, self.keeps_lines = state, False
        try:
            if isinstance(state, Aside):
                self._begin_under(state.profile, self._stepper.refusal)
            if profile is None:
                self.policy = before[2]
            yield
        finally:
            self.keeps_lines, self.lines, self._prefill_figures = keeps, lines, figures
            if isinstance(state, Aside):
                self._state, self.profile, self.policy, self._stepper = before
                state.end()

    def rewind(self, length: int) -> None:
        """Return to the state after `length` tokens, exactly; a tier that evicts may return to one before it."""
        self._state.rewind(length)
        if self.lines is not None and length < self.lines.keys:
            self.lines = None

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""
        self.lines = self.start = None
        self._state.reset()
        self._begin_under(self.profile, self._stepper.refusal)
        empty_cache(self._runtime.device)

    @property
    def identity(self) -> Identity:
        """What a saved store must agree with to be this model's."""
        return self._archive.identity

    def save(self, path: Path) -> int:
        """Write what is stored to a file, all of it or nothing; returns its bytes.

        Raises LoopserveError where there is nothing to save or something else would be lost, OSError when the disk
        refuses.
        """
        return self._archive.save(path, self._state, self.between_tensors)

    def saved(self, path: Path) -> SavedStore:
        """The store in a file, for `restore`; raises LoopserveError, in one line, for one that is not this engine's."""
        return self._archive.open(path, self._state)

    def restore(self, saved: SavedStore) -> None:
        """Hold what a file holds, in place of what was stored; raises LoopserveError, and holds nothing, if that fails.

        The state is that after the last saved token, exactly, under any profile that does not evict.
        """
        self.reset()
        self._store.reserve(self._runtime.limits.within(len(saved.tokens) + RESERVED_ANSWER))
        self._archive.restore(saved, self._state, self.between_tensors)

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
        feed = Feed(self._runtime, self._state, self.new_prefill, ids)
        yield from feed.progress(self.on_progress)
        self._note_lines(feed.prefill)

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
        self.start = None
        with undone_unless_numbers(self._state, len(self.tokens)):
            turn = Turn(self._runtime, self._state, self._stepper, self.new_prefill, ids, sampling, submitted)
            turn.keeps_start = self.keeps_start
            self._prefill_figures = PrefillFigures(turn.prefill)
            try:
                yield from turn.prefilling(cancelled, self.on_progress)
                self._prefill_figures.prefilled = True
                yield from turn.answering(cancelled)
                record, self.start = turn.record(), turn.start
                self._note_lines(turn.prefill)
                yield TurnDone(record, turn.heads() if self.keeps_heads else None)
            finally:
                self._stepper.let_go()  # the reader may close the turn while the next step runs

    def force(self, ids: Sequence[int], see: Callable[[Tensor], None]) -> int:
        """Decode `ids` as the answer of the turn that just ended, under its profile, and leave all as it was.

        `see` gets the logits [1, V] that each of them would have been drawn from, valid until it returns. How many
        that were: fewer than `ids` where the context ends, or positions change (see `rotary`), 0 where they have.
        Needs `keeps_start`. Raises LoopserveError where memory runs out.
        """
        assert self.start is not None and ids, "no answer was begun"
        ids = forcible(ids, self.start.tokens, len(self.tokens), self.context_limit, self._prefiller.lengths)
        if ids:
            with self.aside(within_turn=True):
                forced(self.start, ForcedTokens(ids, self._runtime.device, see), self._state, self._stepper)
        return len(ids)
