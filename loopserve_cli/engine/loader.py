"""Models from where their name says they are: onto one device, or several when one is too small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import attention
from loopserve_cli.engine.adapters import check_vocabulary
from loopserve_cli.engine.context import context_limit, own_limit
from loopserve_cli.engine.cpu_dtype import cpu_dtype
from loopserve_cli.engine.fused import FusedModel
from loopserve_cli.engine.gguf import complete_config, opened
from loopserve_cli.engine.gguf_tokenizer import end_ids, own_vocabulary, unknown_split
from loopserve_cli.engine.handover import Handover
from loopserve_cli.engine.identity import Identity, identify
from loopserve_cli.engine.known_checks import checked, checked_fused
from loopserve_cli.engine.language_part import language_part
from loopserve_cli.engine.placement import pick_device, pick_dtype, place, weight_bytes
from loopserve_cli.engine.random_model import random_config, random_model
from loopserve_cli.engine.sources import Source, resolve
from loopserve_cli.engine.weights import errors_of, read_model
from loopserve_cli.errors import ModelError
from loopserve_cli.shapes import random_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SUPPORTED_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, and the facts the engine needs of it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: torch.device
    layers: int
    context_limit: int | None
    stop_ids: frozenset[int]
    quant: str | None = None
    handover: Handover = Handover()
    identity: Identity | None = None
    fused: FusedModel | None = None

    @property
    def runs(self) -> PreTrainedModel | FusedModel:
        """What computes logits: the fused pass where the model has one."""
        return self.fused or self.model

    @property
    def vocabulary(self) -> int:
        """How many token ids have an embedding."""
        return int(self.model.get_input_embeddings().weight.shape[0])


def load(
    options: ModelOptions,
    progress: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] | None = None,
) -> LoadedModel:
    """Load a model and its tokenizer, or make a random one; `progress` is told each step.

    `warn` is told what the user should know and may go on with; by default `progress` is.

    Raises ModelError, in one line, for everything a user can mend: a missing folder or download, an
    architecture without exchangeable attention, a missing device, too little memory.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    with opened(resolve(options.model), progress) as source:
        return load_from(source, options, progress, warn or progress)


def load_from(
    source: Source, options: ModelOptions, progress: Callable[[str], None], warn: Callable[[str], None]
) -> LoadedModel:
    """As `load`, from where the files are."""
    device = pick_device(options.device)
    progress(f"reading {options.model}")
    config = read_config(source, options)
    check_architecture(config, options)
    config, source = language_part(config, source, options.model, warn)
    limit = context_limit(config, options.context, options.model, warn)
    tokenizer = read_tokenizer(source, options)
    if source.gguf and (split := unknown_split(source)) is not None:
        warn(f"{options.model} splits text as {split} does, which transformers takes for GPT-2's way: ids may be wrong")
    dtype = pick_dtype(options.dtype, device, config)
    if options.dtype == "auto" and device.type == "cpu" and options.quant is None and options.model != "demo":
        dtype = cpu_dtype(config, progress)
    needed = weight_bytes(config, dtype, options)
    attention.register()
    if random_shape(options.model) is None:
        placement = place(options, device, needed)
        progress(f"loading {options.model}: {needed / 2**30:.2f} GiB on {device}")
        model = read_model(source, config, dtype, placement, options)
        if source.adapter is not None:
            check_vocabulary(model, tokenizer, options.model)
        if source.gguf:
            model.generation_config.eos_token_id = end_ids(source, tokenizer)
    else:
        place(replace(options, device=str(device)), device, needed)  # one device, never spread
        progress(f"making {options.model}: {needed / 2**30:.2f} GiB on {device}; its answers mean nothing")
        model = random_model(config, dtype, device, attention.ATTENTION_NAME)
    model.eval()
    layers = cache_layers(config)
    # bitsandbytes repacks weights at their first use on a CPU: later they could not be told apart from others.
    identity = identify(model, tokenizer, options.model, options.quant) if options.quant else None
    handover = checked(model, layers, options.model, options.quant)
    fused = checked_fused(model, layers, handover, options.quant)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=options.model,
        device=model.get_input_embeddings().weight.device,
        layers=layers,
        context_limit=limit,
        stop_ids=stop_ids(model, tokenizer),
        quant=options.quant,
        handover=handover,
        identity=identity,
        fused=fused,
    )


def read_config(source: Source | str, options: ModelOptions) -> PreTrainedConfig:
    """The model's configuration, from the folder, the cache or the hub; a random one's from its shape."""
    from transformers import AutoConfig

    source = Source(source) if isinstance(source, str) else source
    with errors_of(source, options):
        config = AutoConfig.from_pretrained(**source.where, trust_remote_code=options.trust_remote_code)
    if source.gguf:
        return complete_config(config, source)
    shape = random_shape(options.model)
    return config if shape is None else random_config(shape, config)


def read_tokenizer(source: Source, options: ModelOptions) -> PreTrainedTokenizerBase:
    """The model's tokenizer, which must be able to write a chat."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "tekken.json")
    if source.adapter is not None and any((source.adapter / name).exists() for name in names):
        source = Source(str(source.adapter))
    folder = Path(source.place)
    if not source.gguf and folder.is_dir() and not any((folder / name).exists() for name in names):
        raise ModelError(
            f"{options.model}: the folder has no tokenizer (tokenizer.json); copy the model's tokenizer there"
        )
    # A GGUF's is built from the file alone; the automatic class would read the configuration again to find that out.
    reader = PreTrainedTokenizerFast if source.gguf else AutoTokenizer
    with errors_of(source, options):
        tokenizer = reader.from_pretrained(**source.where, trust_remote_code=options.trust_remote_code)
    if source.gguf:
        tokenizer = own_vocabulary(tokenizer, source)
    if not tokenizer.chat_template:
        raise ModelError(f"{options.model}: its tokenizer has no chat template; use an instruct or chat model")
    if tokenizer.unk_token == "":  # transformers would look for the id of "", which is unknown, which is "", for ever
        tokenizer.unk_token = None
    return tokenizer


def check_architecture(config: PreTrainedConfig, options: ModelOptions) -> None:
    """Refuse models whose attention cannot be exchanged, or that keep more than keys and values."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind = type(config)
    # GPT-NeoX calls itself no decoder either, but nobody fills in blanks with it.
    encoder = getattr(config, "is_decoder", True) is False and kind in AutoModelForMaskedLM._model_mapping
    if encoder or (kind not in AutoModelForCausalLM._model_mapping and not options.trust_remote_code):
        raise ModelError(f"{options.model}: architecture {config.model_type!r} is no causal language model")
    if kind in AutoModelForCausalLM._model_mapping:
        model_class = AutoModelForCausalLM._model_mapping[kind]
        if not model_class._supports_attention_backend:
            raise ModelError(
                f"{options.model}: architecture {config.model_type!r} does not let its attention be exchanged "
                "(transformers' AttentionInterface), so loopserve cannot run it"
            )
    foreign = sorted(set(getattr(config.get_text_config(), "layer_types", None) or ()) - set(SUPPORTED_LAYERS))
    if foreign:
        raise ModelError(
            f"{options.model}: architecture {config.model_type!r} has layers of kind {', '.join(foreign)}; "
            f"supported are {', '.join(SUPPORTED_LAYERS)}"
        )
    # Doge attends to as many of a longer dialogue, chosen by scores so close that rounding decides.
    chosen, limit = getattr(config, "keep_window_size", None), options.context or own_limit(config)
    if chosen is not None and (limit is None or limit > chosen):
        raise ModelError(
            f"{options.model}: architecture {config.model_type!r} attends to {chosen:,} tokens of longer dialogues, "
            f"which loopserve cannot choose as transformers does; give --context {chosen}"
        )


def cache_layers(config: PreTrainedConfig) -> int:
    """How many layers keep keys and values: all but the last ones of a model that shares those of earlier layers."""
    text = config.get_text_config()
    return int(text.num_hidden_layers) - int(getattr(text, "num_kv_shared_layers", None) or 0)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends an answer: the model's own list, and the tokenizer's end of sequence."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    return frozenset(i for i in ids if i is not None)
