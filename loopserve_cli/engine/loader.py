"""Models by hub name, local folder, or "demo": onto one device, or several when one is too small."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loopserve_cli.config import ModelOptions
from loopserve_cli.demo.bundled import demo_model_folder
from loopserve_cli.engine import attention
from loopserve_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SUPPORTED_LAYERS = ("full_attention", "sliding_attention")
SPARE = 0.9


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


def load(options: ModelOptions, progress: Callable[[str], None] = lambda _: None) -> LoadedModel:
    """Load a model and its tokenizer; `progress` is told each step.

    Raises ModelError, in one line, for everything a user can mend: a missing folder or download, an
    architecture without exchangeable attention, a missing device, too little memory.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source = resolve(options.model)
    device = pick_device(options.device)
    progress(f"reading {options.model}")
    config = read_config(source, options)
    check_architecture(config, options)
    tokenizer = read_tokenizer(source, options)
    dtype = pick_dtype(options.dtype, device, config)
    needed = weight_bytes(config, dtype, options)
    placement = place(options, device, needed)
    progress(f"loading {options.model}: {needed / 2**30:.2f} GiB on {device}")
    attention.register()
    with readable_errors(options.model):
        model = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            attn_implementation=attention.ATTENTION_NAME,
            quantization_config=quantisation(options.quant, dtype),
            trust_remote_code=options.trust_remote_code,
            device_map=placement,
        )
    model.eval()
    text = config.get_text_config()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=options.model,
        device=model.get_input_embeddings().weight.device,
        layers=text.num_hidden_layers,
        context_limit=getattr(text, "max_position_embeddings", None),
        stop_ids=stop_ids(model, tokenizer),
        quant=options.quant,
    )


def resolve(name: str) -> str:
    """A folder for "demo" and for paths, else the hub name; raises ModelError when a folder is not there."""
    if name == "demo":
        return str(demo_model_folder())
    path = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or path.is_dir() or name.count("/") > 1
    if not looks_local:
        return name
    if not path.is_dir():
        raise ModelError(f"no model folder {name!r}; give a folder with config.json, a hub name, or demo")
    if not (path / "config.json").is_file():
        raise ModelError(f"{name}: no config.json in this folder, so it is no transformers model")
    return str(path)


def pick_device(name: str) -> torch.device:
    """The device asked for, or CUDA if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ModelError(f"device {name} was asked for, but torch sees no GPU; use --device cpu or see loopserve doctor")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ModelError(f"there is no {name}: torch sees {torch.cuda.device_count()} GPUs, numbered from 0")
    return torch.device("cuda", index)


def pick_dtype(name: str, device: torch.device, config: PreTrainedConfig) -> torch.dtype:
    """The dtype asked for; "auto" is float32 on a CPU and the checkpoint's own on a GPU."""
    if name != "auto":
        return getattr(torch, name)  # type: ignore[no-any-return]
    own = config.dtype or config.get_text_config().dtype
    return torch.float32 if device.type == "cpu" or own is None else own


def read_config(source: str, options: ModelOptions) -> PreTrainedConfig:
    """The model's configuration, from the folder, the cache or the hub."""
    from transformers import AutoConfig

    with readable_errors(options.model):
        return AutoConfig.from_pretrained(source, trust_remote_code=options.trust_remote_code)


def read_tokenizer(source: str, options: ModelOptions) -> PreTrainedTokenizerBase:
    """The model's tokenizer, which must be able to write a chat."""
    from transformers import AutoTokenizer

    folder = Path(source)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "tekken.json")
    if folder.is_dir() and not any((folder / name).exists() for name in names):
        raise ModelError(f"{options.model}: the folder has no tokenizer (tokenizer.json); copy the model's tokenizer there")
    with readable_errors(options.model):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=options.trust_remote_code)
    if not tokenizer.chat_template:
        raise ModelError(f"{options.model}: its tokenizer has no chat template; use an instruct or chat model")
    return tokenizer  # type: ignore[no-any-return]


def check_architecture(config: PreTrainedConfig, options: ModelOptions) -> None:
    """Refuse models whose attention cannot be exchanged, or that keep more than keys and values."""
    from transformers import AutoModelForCausalLM

    kind = type(config)
    if kind not in AutoModelForCausalLM._model_mapping and not options.trust_remote_code:
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


def weight_bytes(config: PreTrainedConfig, dtype: torch.dtype, options: ModelOptions) -> int:
    """Bytes the weights will take, counted on a model without storage."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with readable_errors(options.model), init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=options.trust_remote_code)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    tied = model.get_output_embeddings()
    kept = tied.weight.numel() if tied is not None else 0
    total = sum(p.numel() for p in model.parameters())
    small = {"nf4": 0.53, "int8": 1.0}.get(options.quant or "", float(dtype.itemsize))
    quantised = max(0, linear - kept)
    return int(quantised * small + (total - quantised) * dtype.itemsize)


def place(options: ModelOptions, device: torch.device, needed: int) -> dict[str, str] | str:
    """A device map: all on one device if the weights fit, spread over the GPUs if only together they do."""
    import psutil

    if device.type == "cpu":
        free = psutil.virtual_memory().available
    else:
        free = torch.cuda.mem_get_info(device)[0]
        if needed > free * SPARE and options.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
            together = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
            if needed <= together * SPARE:
                return "auto"
            free = together
    if needed > free * SPARE:
        hint = "a smaller model" if options.quant == "nf4" else "--quant nf4 or a smaller model"
        raise ModelError(
            f"{options.model} needs {needed / 2**30:.1f} GiB for its weights, but {device} has "
            f"{free / 2**30:.1f} GiB free; use {hint}"
        )
    return {"": str(device)}


def quantisation(quant: str | None, dtype: torch.dtype) -> Any:
    """bitsandbytes' configuration for "nf4" and "int8"; None for no quantisation."""
    if quant is None:
        return None
    from transformers import BitsAndBytesConfig

    if quant == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends an answer: the model's own list, and the tokenizer's end of sequence."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    return frozenset(i for i in ids if i is not None)


class readable_errors:  # noqa: N801 - a context manager reads as a phrase
    """Turn what the hub, transformers and safetensors raise while loading into one line."""

    def __init__(self, name: str) -> None:
        """Name the model in every message."""
        self.name = name

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Translate; what is no loading failure passes as it is."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
        from safetensors import SafetensorError

        if error is None or isinstance(error, ModelError):
            return
        if isinstance(error, GatedRepoError):
            raise ModelError(f"{self.name} is gated: accept its terms on the hub, then `hf auth login`") from error
        first = " ".join(str(error).split())[:200]
        offline = isinstance(error, LocalEntryNotFoundError | HfHubHTTPError | ConnectionError)
        if offline or (isinstance(error, OSError) and not Path(self.name).is_dir() and self.name != "demo"):
            cached = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached or has no such model"
            raise ModelError(
                f"{self.name} is not in the local cache, and {cached}; check the name, or run "
                f"`hf download {self.name}` where there is a network and copy the folder here"
            ) from error
        if isinstance(error, OSError | ValueError | KeyError | ImportError | SafetensorError):
            raise ModelError(f"{self.name}: cannot be loaded: {first}") from error
