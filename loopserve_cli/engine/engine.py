"""The engine: token ids in, events with measurements out. It prints nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.chunks import choosing_chunk, chunks
from loopserve_cli.engine.decoding import DecodeTurn, LayerBuffers
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.engine.evict import Eviction
from loopserve_cli.engine.identity import Identity, identify
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.placement import layer_devices
from loopserve_cli.engine.sampling import Sampler, TextStream
from loopserve_cli.engine.saved import SavedStore, write
from loopserve_cli.engine.stepper import CudaCapture, Stepper
from loopserve_cli.engine.store import Store, empty_cache
from loopserve_cli.engine.tiers import carried, empty_store
from loopserve_cli.engine.times import times
from loopserve_cli.errors import ContextLimitError, LoopserveError, ModelError, UsageError
from loopserve_cli.policies.keep import keep_policy
from loopserve_cli.policies.prefill import PrefillTurn, prefill_policy
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
        self.tokenizer = loaded.tokenizer
        self.context_limit = loaded.context_limit
        self.model_name = loaded.name
        self.quant = loaded.quant
        self.tokens: list[int] = []
        # Which profiles' policies, as text, computed what is stored, and the profiles' names.
        self.made_under: dict[str, str] = {}
        # bitsandbytes repacks weights at their first use on a CPU: later they could not be told apart from others.
        self._identity = identify(loaded.model, loaded.tokenizer, loaded.name, loaded.quant) if loaded.quant else None
        self._torch_device = loaded.device
        self._stop_ids = loaded.stop_ids
        self._layers = loaded.layers
        # More than one when the model is spread.
        parameters = loaded.model.parameters()
        self._gpus = tuple(dict.fromkeys(p.device for p in parameters if p.device.type == "cuda"))
        self._meter = Meter(self._gpus)
        self._versions = versions()
        self._use(profile, empty_store(profile.retain["tier"], loaded.layers))

    @property
    def device(self) -> str:
        """The device that holds the model's input layer, by name."""
        if self._torch_device.type == "cuda":
            return torch.cuda.get_device_name(self._torch_device)
        return self._torch_device.type

    @property
    def dtype(self) -> str:
        """The dtype the model computes in."""
        return str(self.model.dtype).removeprefix("torch.")

    def memory(self) -> Memory:
        """Memory in use now."""
        return self._meter.read()

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for keys and values, wherever they are."""
        return self._store.device_bytes + self._store.host_bytes

    def set_profile(self, profile: Profile) -> None:
        """Use another profile from the next turn on. The store stays; what one that evicts lacks is fed again."""
        if profile == self.profile:
            return
        old, new = self.profile.retain["tier"], profile.retain["tier"]
        store = self._store
        if "evict" in (old, new):
            self.reset()
        if old != new:
            store = carried(self._store, empty_store(new, self._layers))
        self._use(profile, store)

    def _use(self, profile: Profile, store: Store) -> None:
        """Begin with a profile and a store; captured steps and working sets belong to both."""
        self.profile = profile
        self._policies = json.dumps([asdict(profile.prefill), asdict(profile.keep)], sort_keys=True)
        self.policy = prefill_policy(profile.prefill)
        self.keep = keep_policy(profile.keep)
        self._store = store
        self._eviction = Eviction(store) if profile.retain["tier"] == "evict" else None
        self._buffers: dict[int, LayerBuffers] = {}
        # A model on several GPUs moves data between them, which is not captured.
        capture = CudaCapture if len(self._gpus) == 1 else None
        self._stepper = Stepper(self.model, store, self._torch_device, capture)
        self._decode = DecodeTurn(self.keep, store, self._buffers)

    @property
    def freezes(self) -> bool:
        """Whether what a turn has said is compressed for good when the next begins (tier evict)."""
        return self._eviction is not None

    @torch.inference_mode()
    def begin_segment(self) -> None:
        """What is fed from now on is a turn of its own, for a tier that evicts turn by turn."""
        if self._eviction is not None:
            self._eviction.freeze(self._decode, len(self.tokens))
        self._decode = DecodeTurn(self.keep, self._store, self._buffers)

    def new_prefill(self) -> PrefillTurn:
        """What the next turn's prefill goes through."""
        return PrefillTurn(self.policy)

    @torch.inference_mode()
    def rewind(self, length: int) -> None:
        """Return to the state after `length` tokens, exactly; a tier that evicts may return to one before it."""
        assert 0 <= length <= len(self.tokens)
        if self._eviction is None:
            self._store.rewind(length)
        elif length < len(self.tokens):
            length = self._eviction.rewind(length)
            self._decode.rewind()
        del self.tokens[length:]
        if not self.tokens:
            self.made_under.clear()

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""
        self._store.reset()
        self._use(self.profile, self._store)
        self.tokens.clear()
        self.made_under.clear()
        empty_cache(self._torch_device)

    @property
    def identity(self) -> Identity:
        """What a saved store must agree with to be this model's."""
        if self._identity is None:
            self._identity = identify(self.model, self.tokenizer, self.model_name, self.quant)
        return self._identity

    @torch.inference_mode()
    def save(self, path: Path) -> int:
        """Write what is stored to a file, all of it or nothing; returns its bytes.

        Raises LoopserveError where there is nothing to save or something else would be lost, OSError when the disk
        refuses.
        """
        if self.freezes:
            raise UsageError("retain.tier is evict: what it has dropped could not be loaded, so its cache is not saved")
        if not self.tokens:
            raise UsageError("there is nothing in the cache yet; ask something first")
        return write(path, self._store, self.tokens, self.identity, self.made_under)

    def saved(self, path: Path) -> SavedStore:
        """The store in a file, for `restore`; raises LoopserveError, in one line, for one that is not this engine's."""
        if self.freezes:
            raise UsageError(f"{path}: retain.tier is evict, which loads no saved cache")
        saved = SavedStore.read(path)
        difference = saved.identity.difference(self.identity)
        if difference is not None:
            raise LoopserveError(f"{path} was saved {difference}")
        return saved

    @torch.inference_mode()
    def restore(self, saved: SavedStore) -> None:
        """Hold what a file holds, in place of what was stored; raises LoopserveError, and holds nothing, if that fails.

        The state is that after the last saved token, exactly, under any profile that does not evict.
        """
        self.reset()
        self._store.reserve(self._room_for(len(saved.tokens) + RESERVED_ANSWER))
        try:
            saved.into(self._store, layer_devices(self.model))
        except BaseException as error:
            self.reset()
            if is_out_of_memory(error):
                raise LoopserveError(f"{saved.path}: out of memory at {len(saved.tokens)} tokens") from error
            raise
        self.tokens += saved.tokens
        self.made_under |= saved.profiles

    @property
    def made_otherwise(self) -> list[str]:
        """The names of other profiles under which some of what is stored was computed: its keys are theirs."""
        return [name for policies, name in self.made_under.items() if policies != self._policies]

    def feed(self, ids: list[int]) -> None:
        """Prefill without generating: a recorded answer, or a resumed dialogue. All of it, or nothing."""
        for _ in self.feed_progress(ids):
            pass

    def feed_progress(self, ids: list[int]) -> Iterator[PrefillProgress]:
        """As `feed`, with progress after every chunk; closed early, it keeps the chunks already fed."""
        self._check_context(len(ids))
        self._store.reserve(len(self.tokens) + len(ids))
        prefill = self.new_prefill()
        for chunk, done in self._chunks(ids):
            self._prefill(prefill, chunk, last=done == len(ids), decode=self._decode if self.freezes else None)
            yield PrefillProgress(done, len(ids))

    def turn(
        self,
        ids: list[int],
        sampling: SamplingOptions,
        cancelled: Callable[[], bool] = lambda: False,
        submitted: float | None = None,
    ) -> Iterator[Event]:
        """Prefill `ids` after what is stored, then generate until something ends it.

        Yields `PrefillProgress` per chunk, `Token` per token, and one `TurnDone`. `cancelled` is asked
        between chunks and between tokens. `submitted` is the `time.perf_counter` stamp TTFT counts from.
        The last token of an answer is not in the store: it is fed with the next turn, which begins with it.
        Raises ContextLimitError, before anything is fed, when `ids` and one token do not fit.
        """
        assert ids, "a turn needs at least one new token"
        self._check_context(len(ids) + 1)
        watch = Stopwatch(self._gpus, submitted)
        self._stepper.replays = 0
        cached = len(self.tokens)
        self._meter.reset_peak()
        sampler = Sampler(sampling, self._torch_device, self.tokens + ids)
        self._store.reserve(self._room_for(cached + len(ids) + min(sampling.max_new_tokens, RESERVED_ANSWER)))

        self.begin_segment()
        prefill, decode = self.new_prefill(), self._decode
        prefill_began = watch.ms()
        logits = None
        for chunk, done in self._chunks(ids):
            if cancelled():
                break
            logits = self._prefill(prefill, chunk, last=done == len(ids), decode=decode)
            with watch.paused():
                yield PrefillProgress(done, len(ids))
        prefilled = len(self.tokens) - cached
        prefill_ms = watch.ms() - prefill_began

        stream = TextStream(self.tokenizer, sampling.stop)
        stamps: list[float] = []
        output: list[int] = []
        finish = None if prefilled == len(ids) else "cancelled"
        while finish is None:
            if cancelled():
                finish = "cancelled"
                break
            assert logits is not None
            token = sampler.draw(logits)
            stamps.append(watch.ms())
            output.append(token)
            text = "" if token in self._stop_ids else stream.push(token)
            finish = self._finish_reason(token, stream, len(output), sampling)
            with watch.paused():
                yield Token(token, text + (stream.flush() if finish else ""))
            if finish is None and not cancelled():
                with self._whole_or_nothing():
                    logits = self._stepper.step(token, len(self.tokens), decode)
                    self.tokens.append(token)
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
            tokens_output=len(output),
            tokens_logical=cached + prefilled + len(output),
            output_text=stream.text,
            finish_reason=finish,
            alpha=self.policy.alpha,
            graph_replays=self._stepper.replays,
            graph_refusal=self._stepper.refusal,
        )
        yield TurnDone(record)

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
            "keys_stored": self._store.length,
            "kv_store_device_bytes": self._store.device_bytes,
            "kv_store_host_bytes": self._store.host_bytes,
            "versions": self._versions,
        }

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

    def _chunks(self, ids: list[int]) -> Iterator[tuple[list[int], int]]:
        """The ids in prefill chunks, each with how many are fed after it."""
        size = PREFILL_CHUNK.get(self._torch_device.type, 2048)
        if self.policy.gate.opens(len(ids), len(self.tokens) + len(ids)):
            width = getattr(self.model.config, "intermediate_size", None) or 4 * self.model.config.hidden_size
            size = max(size, choosing_chunk(self._torch_device, self.model.dtype, width))
        return chunks(ids, size)

    def _prefill(self, prefill: PrefillTurn, chunk: list[int], last: bool, decode: DecodeTurn | None = None) -> Tensor:
        """Feed one chunk under the turn's policy; `last` says that nothing comes after it, `decode` watches."""
        prefill.last_chunk = last
        with self._whole_or_nothing():
            logits = self._forward(chunk, prefill, decode)
            self.made_under[self._policies] = self.profile.name
            if not prefill.layers:
                self.rewind(len(self.tokens) - len(chunk))
                raise ModelError(
                    f"{self.model_name}: this architecture keeps keyword arguments from its attention, so loopserve "
                    "cannot tell it what to compute; use another model"
                )
        return logits

    @torch.inference_mode()
    def _forward(self, ids: list[int], prefill: PrefillTurn, decode: DecodeTurn | None) -> Tensor:
        """Run the model over new ids at their positions; logits of the last, [1, V]."""
        first = len(self.tokens)
        device = self._torch_device
        out = self.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.arange(first, first + len(ids), device=device)[None],
            past_key_values=self._store,
            use_cache=True,
            logits_to_keep=1,
            prefill=prefill,
            decode=decode,
        )
        self.tokens += ids
        logits: Tensor = out.logits[:, -1]
        return logits

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """Undo a half-done forward pass: layers before the failure have stored what later ones have not."""
        try:
            yield
        except BaseException as error:
            self._store.rewind(len(self.tokens))
            if is_out_of_memory(error):
                empty_cache(self._torch_device)
                raise LoopserveError(
                    f"out of memory at {len(self.tokens)} stored tokens, which are kept; "
                    "shorten the message, /undo, or use --quant nf4"
                ) from error
            raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; torch's CPU allocator says so only in its text."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
