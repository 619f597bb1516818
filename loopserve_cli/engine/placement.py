"""Where a model goes: which device, which dtype, and whether its weights fit there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.load_errors import ReadableErrors
from loopserve_cli.errors import ModelError
from loopserve_cli.shapes import BF16_BYTES, random_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# The share of free memory that weights may take: the rest is for keys, values and activations.
SPARE = 0.9
# Bytes per weight of a quantised linear layer; nf4 is half a byte, and one fp32 scale for every 64 weights.
QUANTISED_BYTES = {"nf4": 0.5 + 4 / 64, "int8": 1.0}


def pick_device(name: str) -> torch.device:
    """The device asked for, or CUDA if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ModelError(
            f"device {name} was asked for, but torch sees no GPU; use --device cpu or see loopserve doctor"
        )
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ModelError(f"there is no {name}: torch sees {torch.cuda.device_count()} GPUs, numbered from 0")
    return torch.device("cuda", index)


def pick_dtype(name: str, device: torch.device, config: PreTrainedConfig) -> torch.dtype:
    """The dtype asked for; "auto" is the checkpoint's own on a GPU, and float32 on a CPU unless cpu_dtype says more."""
    if name != "auto":
        return getattr(torch, name)
    own = config.dtype or config.get_text_config().dtype
    return torch.float32 if device.type == "cpu" or own is None else own


def weight_bytes(config: PreTrainedConfig, dtype: torch.dtype, options: ModelOptions) -> int:
    """Bytes the weights will take, counted on a model without storage."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with ReadableErrors(options.model), init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=options.trust_remote_code)
    model.tie_weights()  # on the way to having no storage, shared weights were parted and would count twice
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    tied = model.get_output_embeddings()
    kept = tied.weight.numel() if tied is not None else 0
    total = sum(p.numel() for p in model.parameters())
    small = QUANTISED_BYTES.get(options.quant or "", float(dtype.itemsize))
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
        raise ModelError(
            f"{options.model} needs {needed / 2**30:.1f} GiB for its weights, but {device} has "
            f"{free / 2**30:.1f} GiB free; use {smaller(options, needed, int(free * SPARE))}"
        )
    return {"": str(device)}


def smaller(options: ModelOptions, needed: int, room: int) -> str:
    """What to do about weights of `needed` bytes where there is `room` for less: only what helps."""
    shape = random_shape(options.model)
    if shape is not None:  # it has no weights to quantise
        halved = shape.weight_bytes(BF16_BYTES)
        if halved < needed and halved <= room:
            return f"--dtype bfloat16 ({halved / 2**30:.1f} GiB) or a smaller model"
        return "a smaller model"
    return "a smaller model" if options.quant == "nf4" else "--quant nf4 or a smaller model"


def layer_devices(model: PreTrainedModel) -> dict[int, torch.device]:
    """Where each layer of a loaded model computes its keys and values, by the number its cache knows it by."""
    numbered = ((getattr(module, "layer_idx", None), module) for module in model.modules())
    return {number: next(module.parameters()).device for number, module in numbered if isinstance(number, int)}
