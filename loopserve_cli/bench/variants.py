"""The ways to run a model that are compared: our engine, and transformers' `generate` on its own copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.bench.timing import FLOOR, OURS, Timing, timing_of
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import Profile
from loopserve_cli.shapes import random_shape
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    import torch

    from loopserve_cli.bench.rounds import Variant
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import LoadedModel


class Loopserve:
    """Our engine under one profile, driven with token ids as the chat drives it."""

    dialogues = True

    def __init__(self, engine: Engine, name: str = OURS) -> None:
        """The engine must not know of stop ids: an answer has exactly the length asked for."""
        self.engine = engine
        self.name = name

    def reset(self) -> None:
        """Empty the store."""
        self.engine.reset()

    def turn(self, ids: list[int], new_tokens: int) -> Timing:
        """Answer `ids`, of which what the store holds is not fed again."""
        sampling = SamplingOptions(max_new_tokens=new_tokens)
        stamps: list[float] = []
        output: list[int] = []
        started = time.perf_counter()
        cached = len(self.engine.tokens)
        record = TurnRecord()
        for event in self.engine.turn(ids[cached:], sampling, lambda: False, started):
            if isinstance(event, Token):
                stamps.append(time.perf_counter())
                output.append(event.id)
            elif isinstance(event, TurnDone):
                record = event.record
        timing = timing_of(started, stamps, output, len(ids) - cached, cached)
        return replace(timing, density=record.density, coverage=record.coverage, select_ms=record.select_ms)


class Stamps:
    """A streamer for `generate` that notes when each token is on the host. The prompt comes first."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.times: list[float] = []
        self.ids: list[int] = []
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """The prompt, then one token at a time."""
        if self._prompt_seen:
            self.times.append(time.perf_counter())
            self.ids += value.flatten().tolist()
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is held back."""


class Generate:
    """transformers' `generate` with SDPA; it keeps its own cache, so that follow-up turns feed only what is new."""

    def __init__(self, model: Any, static: int | None = None) -> None:
        """A dynamic cache, or a static one of so many tokens, which is what transformers decodes fastest with."""
        self.model = model
        self.static = static
        self.name = "transformers, static cache" if static else "transformers"
        self.dialogues = static is None
        self._cache: Any = None

    def reset(self) -> None:
        """Drop the cache."""
        self._cache = None
        if self.model.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def turn(self, ids: list[int], new_tokens: int) -> Timing:
        """Answer `ids` with the cache of the turns before."""
        import torch

        if self._cache is None:
            self._cache = self._new_cache()
        cached = int(self._cache.get_seq_length())
        stamps = Stamps()
        started = time.perf_counter()
        inputs = torch.tensor([ids], device=self.model.device)
        self.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            past_key_values=self._cache,
            max_new_tokens=new_tokens,
            do_sample=False,
            streamer=stamps,
        )
        return timing_of(started, stamps.times, stamps.ids, len(ids) - cached, cached)

    def _new_cache(self) -> Any:
        from transformers import DynamicCache, StaticCache

        if self.static is None:
            return DynamicCache(config=self.model.config)
        return StaticCache(config=self.model.config, max_cache_len=self.static)


@dataclass(frozen=True, slots=True)
class Contest:
    """The variants, the prompt they all get, and what they run on. `exact`: all attend to everything."""

    variants: list[Variant]
    prompt: list[int]
    device: str
    dtype: str
    exact: bool


def open_contest(
    options: ModelOptions,
    profile: Profile,
    rival: Profile | None,
    tokens: int,
    new_tokens: int,
    answers: int,
    say: Callable[[str], None],
) -> Contest:
    """Our engine under `profile` against itself under `rival`, or, where that is None, against transformers.

    Of two profiles, one that leaves attention out gets the floor beside it: the engine with attention for free.
    transformers gets a copy of the weights. `answers` is how many answer tokens a dialogue adds at most.
    Raises ModelError, and UsageError when the context is too short.
    """
    from loopserve_cli.bench.floor import FloorEngine
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import load

    loaded = load(options, say)
    needed = tokens + max(new_tokens, answers)
    if loaded.context_limit is not None and needed > loaded.context_limit:
        raise UsageError(
            f"--tokens {tokens} with its answers is {needed} tokens, but {loaded.name} reads at most "
            f"{loaded.context_limit}; give fewer"
        )
    loaded = replace(loaded, stop_ids=frozenset())
    engine = Engine(loaded, profile)
    variants: list[Variant] = [Loopserve(engine)]
    if rival is None:
        say("loading the same weights again for transformers, with SDPA")
        model = load_rival(options, loaded)
        variants += [Generate(model), Generate(model, static=tokens + new_tokens)]
    else:
        variants += [Loopserve(Engine(loaded, rival), rival.name), Loopserve(FloorEngine(loaded, rival), FLOOR)]
    exact = attends_to_everything(profile) and (rival is None or attends_to_everything(rival))
    return Contest(variants, prompt_ids(loaded.tokenizer, tokens), engine.device, engine.dtype, exact)


def attends_to_everything(profile: Profile) -> bool:
    """Whether the profile leaves nothing out, so that its greedy tokens are full attention's."""
    return profile.prefill.policy == "dense" and profile.keep.policy == "everything"


def load_rival(options: ModelOptions, loaded: LoadedModel) -> Any:
    """The model as transformers itself runs it: same weights, dtype, quantisation and devices, SDPA, no stop ids."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    from loopserve_cli.engine.load_errors import ReadableErrors
    from loopserve_cli.engine.loader import quantisation, read_config, resolve
    from loopserve_cli.engine.random_model import random_model

    source, dtype = resolve(options.model), loaded.model.dtype
    model: Any
    if random_shape(options.model) is not None:
        model = random_model(read_config(source, options), dtype, loaded.device, "sdpa")
    else:
        with ReadableErrors(options.model):
            model = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                attn_implementation="sdpa",
                quantization_config=quantisation(options.quant, dtype),
                trust_remote_code=options.trust_remote_code,
                device_map=getattr(loaded.model, "hf_device_map", None) or {"": str(loaded.device)},
            )
    model.eval()
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model
