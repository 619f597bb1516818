"""A model's weights: as they were saved, dequantised, merged with an adapter, and quantised anew."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import adapters, attention, gguf
from loopserve_cli.engine.language_part import NAMES
from loopserve_cli.engine.load_errors import ReadableErrors
from loopserve_cli.engine.placement import place, weight_bytes
from loopserve_cli.engine.sources import Source
from loopserve_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Placement = dict[str, Any] | str


def errors_of(source: Source, options: ModelOptions) -> AbstractContextManager[None]:
    """What turns a reader's errors into one line."""
    return gguf.readable(options.model) if source.gguf else ReadableErrors(options.model)


def read_model(
    source: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    placement: Placement,
    options: ModelOptions,
    implementation: str = attention.ATTENTION_NAME,
) -> PreTrainedModel:
    """The model with its weights, and our attention unless another `implementation` is named.

    What is dequantised or merged first is quantised afterwards: transformers does not do both at once.
    """
    anew = options.quant is not None and (bool(source.gguf) or source.adapter is not None)
    if not anew:
        return read_whole(source, config, dtype, placement, options, implementation)
    plain = replace(options, quant=None)
    place(replace(options, device="cpu"), torch.device("cpu"), weight_bytes(config, dtype, plain))
    whole = read_whole(source, config, dtype, {"": "cpu"}, plain, implementation)
    return quantised(whole, dtype, placement, options, implementation)


def read_whole(
    source: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    placement: Placement,
    options: ModelOptions,
    implementation: str,
) -> PreTrainedModel:
    """The model as its files hold it, with its adapter merged in."""
    from transformers import AutoModelForCausalLM

    with errors_of(source, options):
        model, report = AutoModelForCausalLM.from_pretrained(
            **source.where,
            config=config,
            dtype=dtype,
            attn_implementation=implementation,
            quantization_config=gguf.dequantised() if source.gguf else quantisation(options.quant, dtype),
            trust_remote_code=options.trust_remote_code,
            device_map=placement,
            key_mapping=NAMES if source.language_only else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told in our words below
        )
    check_weights(report, options)
    if source.gguf:
        gguf.check_complete(model, source, options.model)
    return model if source.adapter is None else adapters.merged(model, source.adapter, options.model)


def quantised(
    model: PreTrainedModel, dtype: torch.dtype, placement: Placement, options: ModelOptions, implementation: str
) -> PreTrainedModel:
    """The same model with its linear layers quantised, as loading it from a folder would have made it."""
    config = type(model.config).from_dict(model.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the file's own
    made: PreTrainedModel = type(model).from_pretrained(
        None,
        config=config,
        state_dict=model.state_dict(),
        dtype=dtype,
        attn_implementation=implementation,
        quantization_config=quantisation(options.quant, dtype),
        device_map=placement,
    )
    return made


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
    from transformers import BitsAndBytesConfig

    adapters.quiet_bitsandbytes()
    if quant == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
