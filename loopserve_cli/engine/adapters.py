"""LoRA adapters: weights that go on top of a base model, merged into it so that attention stays exchangeable."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopserve_cli.errors import ModelError
from loopserve_cli.files import MODEL_TEXT_LIMIT, Refused, read_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG = "adapter_config.json"
INSTALL = "pip install 'loopserve[peft]'"


def base_of(folder: Path, name: str) -> str:
    """The base model that an adapter's folder names; raises ModelError where it names none, or peft is not there."""
    try:
        settings: Any = json.loads(read_file(folder / CONFIG, MODEL_TEXT_LIMIT))
        base = settings["base_model_name_or_path"]
    except Refused as refusal:
        raise ModelError(f"{name}: its {CONFIG} {refusal}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{name}: its {CONFIG} is damaged or names no base model; copy it again") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"{name}: is an adapter whose {CONFIG} names no base_model_name_or_path; write it there")
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{name}: is an adapter of kind {kind}; only LoRA can be merged into its base model")
    if not any((folder / f"adapter_model.{end}").is_file() for end in ("safetensors", "bin")):
        raise ModelError(f"{name}: has no weights (adapter_model.safetensors); copy the adapter's files again")
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"{name}: is an adapter of {base}, which needs peft: {INSTALL}")
    return base


def merged(model: PreTrainedModel, folder: Path, name: str) -> PreTrainedModel:
    """The base with an adapter's weights added to its own; raises ModelError where they do not belong to it."""
    quiet_bitsandbytes()  # peft imports it
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            both = PeftModel.from_pretrained(model, str(folder))
            whole: PreTrainedModel = both.merge_and_unload(safe_merge=True)
        except Exception as error:  # peft raises anything for files that do not fit
            first = " ".join(str(error).split())[:200]
            raise ModelError(f"{name}: the adapter does not fit its base model: {first}") from error
    missing = next((str(w.message) for w in said if "missing adapter keys" in str(w.message)), None)
    if missing is not None:
        raise ModelError(f"{name}: the adapter's weights are incomplete, or of another base model; copy it again")
    return whole


def quiet_bitsandbytes() -> None:
    """On a CPU it warns at every start that a faster kernel could be downloaded; nothing is downloaded unasked."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer with more tokens than the merged model has embeddings for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"{name}: its tokenizer has {len(tokenizer):,} tokens, but its base has embeddings for {rows:,}; "
            "save the adapter together with its embeddings"
        )
