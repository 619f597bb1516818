"""Models by hub name, local folder, "demo" or "random:NAME": onto one device, or several when one is too small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loopserve_cli.config import ModelOptions
from loopserve_cli.demo.files import demo_model_folder
from loopserve_cli.engine import attention
from loopserve_cli.engine.context import context_limit
from loopserve_cli.engine.load_errors import ReadableErrors
from loopserve_cli.engine.placement import pick_device, pick_dtype, place, weight_bytes
from loopserve_cli.engine.random_model import random_config, random_model
from loopserve_cli.errors import ModelError
from loopserve_cli.shapes import random_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SUPPORTED_LAYERS = ("full_attention", "sliding_attention")


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

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source = resolve(options.model)
    device = pick_device(options.device)
    progress(f"reading {options.model}")
    config = read_config(source, options)
    check_architecture(config, options)
    limit = context_limit(config, options.context, options.model, warn or progress)
    tokenizer = read_tokenizer(source, options)
    dtype = pick_dtype(options.dtype, device, config)
    needed = weight_bytes(config, dtype, options)
    attention.register()
    if random_shape(options.model) is None:
        placement = place(options, device, needed)
        progress(f"loading {options.model}: {needed / 2**30:.2f} GiB on {device}")
        model = read_model(source, config, dtype, placement, options)
    else:
        place(replace(options, device=str(device)), device, needed)  # one device, never spread
        progress(f"making {options.model}: {needed / 2**30:.2f} GiB on {device}; its answers mean nothing")
        model = random_model(config, dtype, device, attention.ATTENTION_NAME)
    model.eval()
    text = config.get_text_config()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=options.model,
        device=model.get_input_embeddings().weight.device,
        layers=text.num_hidden_layers,
        context_limit=limit,
        stop_ids=stop_ids(model, tokenizer),
        quant=options.quant,
    )


def read_model(
    source: str, config: PreTrainedConfig, dtype: torch.dtype, placement: dict[str, str] | str, options: ModelOptions
) -> PreTrainedModel:
    """The model with its weights as they were saved, and our attention."""
    from transformers import AutoModelForCausalLM

    with ReadableErrors(options.model):
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            attn_implementation=attention.ATTENTION_NAME,
            quantization_config=quantisation(options.quant, dtype),
            trust_remote_code=options.trust_remote_code,
            device_map=placement,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told in our words below
        )
    check_weights(report, options)
    return model


def resolve(name: str) -> str:
    """A folder for "demo" and for paths, else the hub name; raises ModelError when a folder is not there.

    A random model speaks the demo model's language: its tokenizer and chat template are read from there.
    """
    if name == "demo" or random_shape(name) is not None:
        return str(demo_model_folder())
    path = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or path.exists() or name.count("/") > 1
    if not looks_local:
        return name
    if not path.is_dir():
        raise ModelError(f"no model folder {name!r}; give a folder with config.json, a hub name, or demo")
    if not (path / "config.json").is_file():
        raise ModelError(f"{name}: no config.json in this folder, so it is no transformers model")
    return str(path)


def read_config(source: str, options: ModelOptions) -> PreTrainedConfig:
    """The model's configuration, from the folder, the cache or the hub; a random one's from its shape."""
    from transformers import AutoConfig

    with ReadableErrors(options.model):
        config = AutoConfig.from_pretrained(source, trust_remote_code=options.trust_remote_code)
    shape = random_shape(options.model)
    return config if shape is None else random_config(shape, config)


def read_tokenizer(source: str, options: ModelOptions) -> PreTrainedTokenizerBase:
    """The model's tokenizer, which must be able to write a chat."""
    from transformers import AutoTokenizer

    folder = Path(source)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "tekken.json")
    if folder.is_dir() and not any((folder / name).exists() for name in names):
        raise ModelError(
            f"{options.model}: the folder has no tokenizer (tokenizer.json); copy the model's tokenizer there"
        )
    with ReadableErrors(options.model):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=options.trust_remote_code)
    if not tokenizer.chat_template:
        raise ModelError(f"{options.model}: its tokenizer has no chat template; use an instruct or chat model")
    return tokenizer


def check_architecture(config: PreTrainedConfig, options: ModelOptions) -> None:
    """Refuse models whose attention cannot be exchanged, or that keep more than keys and values."""
    from transformers import AutoModelForCausalLM

    kind = type(config)
    encoder = getattr(config, "is_decoder", True) is False
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


def check_weights(report: Mapping[str, Any], options: ModelOptions) -> None:
    """Refuse weights that do not fill the model: transformers would make up the rest at random."""
    wrong = sorted(key for key, *_ in report["mismatched_keys"])
    for problem, names in {"of another shape": wrong, "missing": sorted(report["missing_keys"])}.items():
        if names:
            raise ModelError(
                f"{options.model}: the weights do not belong to config.json: {len(names)} of the tensors are {problem} "
                f"({names[0]}); copy the model's files again"
            )


def quantisation(quant: str | None, dtype: torch.dtype) -> Any:
    """Bitsandbytes' configuration for "nf4" and "int8"; None for no quantisation."""
    if quant is None:
        return None
    import logging

    from transformers import BitsAndBytesConfig

    # On a CPU it warns at every start that a faster kernel could be downloaded; loopserve downloads nothing unasked.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    if quant == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends an answer: the model's own list, and the tokenizer's end of sequence."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    return frozenset(i for i in ids if i is not None)
