"""transformers' `generate`, on its own copy of the weights, as one of the ways to run a model that are compared."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.model_call import cache_argument
from loopserve_cli.engine.times import token_times
from loopserve_cli.errors import ModelError
from loopserve_cli.measure.measured import Measured
from loopserve_cli.shapes import random_shape
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    import torch

    from loopserve_cli.engine.loader import LoadedModel

GENERATE = "transformers"
STATIC = "transformers, static cache"
COMPILED = "transformers, static cache, compiled"
# Enough steps for everything that happens once: compiling, and on a GPU a warm-up and the capture of a graph.
FIRST_STEPS = 6


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
    """transformers' `generate` with SDPA; it keeps its own cache, so that follow-up turns feed only what is new.

    A static cache cannot be cropped, and neither can a sliding window that has slid: such a variant `rewinds` not,
    and so takes no part in a dialogue whose answers are taken back. With a static cache its steps may be compiled;
    `compile_ms` is then the time of that, once `prepare` has found it, and part of no timing.
    """

    def __init__(self, model: Any, static: int | None = None, compiled: bool = False) -> None:
        """A dynamic cache, or a static one of so many tokens, with which steps are captured on a GPU if `compiled`."""
        assert static is not None or not compiled, "a cache that grows has no one step to compile"
        self.model = model
        self.static = static
        self.compiled = compiled
        self.compile_ms: float | None = None
        self.name = COMPILED if compiled else STATIC if static else GENERATE
        self.dialogues = static is None
        self.rewinds = static is None and can_be_cropped(self._new_cache())
        self._cache: Any = None

    def reset(self) -> None:
        """Drop the cache; that of compiled steps is emptied, for it is the one that they were captured with."""
        if self.compiled and self._cache is not None:
            self._cache.reset()
            return
        self._cache = None
        if self.model.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def prepare(self) -> None:
        """Compile the step, and find how long that takes: what a first short answer takes longer than a second.

        Raises ModelError where nothing can be compiled: no compiler, or a model that transformers does not compile.
        """
        from torch._dynamo.exc import TorchDynamoException
        from torch._dynamo.utils import counters

        assert self.compiled
        before = counters["stats"]["unique_graphs"]
        try:
            first, again = (self._seconds_of_an_answer() for _ in range(2))
        except TorchDynamoException as error:
            raise ModelError(f"transformers' steps cannot be compiled: {str(error).splitlines()[0]}") from None
        if counters["stats"]["unique_graphs"] == before:
            raise ModelError("transformers does not compile the steps of this model")
        self.compile_ms = max(0.0, first - again) * 1e3

    def _seconds_of_an_answer(self) -> float:
        started = time.perf_counter()
        self.turn([0] * 4, FIRST_STEPS)
        self.reset()
        return time.perf_counter() - started

    def rewind(self, length: int) -> int:
        """Hold only the first `length` tokens, and return that; only where it `rewinds`."""
        assert self.rewinds
        if self._cache is not None:
            self._cache.crop(length - int(self._cache.get_seq_length()))
        return length

    def feed(self, ids: list[int]) -> None:
        """Hold `ids` too, without answering."""
        import torch

        if self._cache is None:
            self._cache = self._new_cache()
        with torch.no_grad():
            inputs = torch.tensor([ids], device=self.model.device)
            cache = cache_argument(self.model, self._cache)
            self.model(input_ids=inputs, use_cache=True, logits_to_keep=1, **cache)

    def turn(self, ids: list[int], new_tokens: int) -> Measured:
        """Answer `ids` with the cache of the turns before. What it read of it and left out is not measured."""
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
            **cache_argument(self.model, self._cache),
            max_new_tokens=new_tokens,
            do_sample=False,
            streamer=stamps,
            **self._compilation(),
        )
        times = [(stamp - started) * 1e3 for stamp in stamps.times]
        device, host = bytes_of(self._cache.layers)
        record = TurnRecord(
            tokens_new=len(ids) - cached,
            tokens_cached=cached,
            tokens_output=len(stamps.ids),
            **token_times(times, times[-1]),
            keys_stored=int(self._cache.get_seq_length()),
            kv_store_device_bytes=device,
            kv_store_host_bytes=host,
        )
        return Measured(record, tuple(stamps.ids))

    def _compilation(self) -> dict[str, Any]:
        """What `generate` is told: by itself it compiles on a GPU alone, and there with any static cache."""
        if not self.compiled:
            return {"disable_compile": True}
        from transformers import CompileConfig

        config = CompileConfig()
        config._compile_all_devices = True
        return {"compile_config": config}

    def _new_cache(self) -> Any:
        from transformers import DynamicCache, StaticCache

        if self.static is None:
            return DynamicCache(config=self.model.config)
        return StaticCache(config=self.model.config, max_cache_len=self.static)


def can_be_cropped(cache: Any) -> bool:
    """Whether every layer keeps all that it was given."""
    from transformers.cache_utils import DynamicLayer

    return all(isinstance(layer, DynamicLayer) and not layer.is_sliding for layer in cache.layers)


def bytes_of(layers: Iterable[Any]) -> tuple[int, int]:
    """Bytes of the cache's tensors, on accelerators and on the host."""
    device = host = 0
    for layer in layers:
        for tensor in (layer.keys, layer.values):
            if tensor is not None and tensor.device.type == "cpu":
                host += tensor.nbytes
            elif tensor is not None:
                device += tensor.nbytes
    return device, host


def load_rival(options: ModelOptions, loaded: LoadedModel) -> Any:
    """The model as transformers itself runs it: same weights, dtype, quantisation and devices, SDPA, no stop ids."""
    from transformers import GenerationConfig

    from loopserve_cli.engine.gguf import opened
    from loopserve_cli.engine.loader import read_config
    from loopserve_cli.engine.random_model import random_model
    from loopserve_cli.engine.sources import resolve
    from loopserve_cli.engine.weights import read_model

    dtype = loaded.model.dtype
    model: Any
    with opened(resolve(options.model)) as source:
        config = read_config(source, options)
        if random_shape(options.model) is not None:
            model = random_model(config, dtype, loaded.device, "sdpa")
        else:
            devices = getattr(loaded.model, "hf_device_map", None) or {"": str(loaded.device)}
            model = read_model(source, config, dtype, devices, options, "sdpa")
    model.eval()
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model
