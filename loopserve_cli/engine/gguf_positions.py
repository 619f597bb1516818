"""Rotary positions as a GGUF file scales them, which transformers' reader leaves out.

llama.cpp writes YaRN and linear scaling as settings, Llama 3's as the tensor rope_freqs, and longrope's factors as two
tensors (ggml's docs/gguf.md). Without them a model reads its positions wrongly, and says so in no way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from loopserve_cli.engine.gguf_header import GgufHeader
from loopserve_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Llama 3's numbers, which the file does not give: tokens trained, and which wavelengths of them are scaled.
LLAMA3 = {"original_max_position_embeddings": 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
# Models whose queries are scaled by width over heads and not by the head's size: architecture and layers.
SCALED_BY_WIDTH = {("gemma2", 46), ("gemma3", 62)}


def complete_positions(config: PreTrainedConfig, header: GgufHeader) -> None:
    """Write into a configuration what the file says of positions; raises ModelError for a kind that is not known."""
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return
    flat = rope.get("full_attention", rope)  # of layers that differ, those with windows are never scaled
    flat |= _scaling(header, flat)
    if flat is rope:
        flat |= _part(config, header, flat)
    if flat.get("rope_type") == "longrope":
        config.original_max_position_embeddings = flat["original_max_position_embeddings"]
    if (header.architecture, config.num_hidden_layers) in SCALED_BY_WIDTH:
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads


def _scaling(header: GgufHeader, rope: dict[str, Any]) -> dict[str, Any]:
    kind, factor = header.own("rope.scaling.type"), header.own("rope.scaling.factor")
    original = header.own("rope.scaling.original_context_length")
    known = {} if original is None else {"original_max_position_embeddings": int(original)}
    if FREQUENCIES in header.tensors:
        return _llama3(header, float(rope["rope_theta"]), known)
    if LONG in header.tensors:
        if original is None or SHORT not in header.tensors:
            raise _unknown(header, "longrope without its trained length")
        factors = {"long_factor": header.numbers(LONG), "short_factor": header.numbers(SHORT)}
        return known | factors | {"rope_type": "longrope", "factor": header.own("context_length") / original}
    if kind in (None, "none") or factor in (None, 0.0, 1.0):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn":
        betas = {name: header.own(f"rope.scaling.yarn_{name}") for name in ("beta_fast", "beta_slow")}
        return known | {k: v for k, v in betas.items() if v} | {"rope_type": "yarn", "factor": float(factor)}
    raise _unknown(header, str(kind))


def _llama3(header: GgufHeader, base: float, known: dict[str, Any]) -> dict[str, Any]:
    """The settings that give the file's factors, one for each pair of dimensions."""
    factors = header.numbers(FREQUENCIES)
    largest = max(factors)
    if largest == 1.0:
        return {}
    settings = LLAMA3 | known
    made = [llama3_factor(base ** (2 * i / (2 * len(factors))), largest, settings) for i in range(len(factors))]
    if any(not math.isclose(ours, theirs, rel_tol=1e-3) for ours, theirs in zip(made, factors, strict=True)):
        raise _unknown(header, "by factors of its own")
    return settings | {"rope_type": "llama3", "factor": largest}


def llama3_factor(inverse: float, factor: float, settings: dict[str, Any]) -> float:
    """By what Llama 3 divides a frequency of 1 / `inverse` (transformers: `_compute_llama3_parameters`)."""
    trained, low, high = (float(settings[name]) for name in LLAMA3)
    wavelength = 2 * math.pi * inverse
    if wavelength < trained / high:
        return 1.0
    if wavelength > trained / low:
        return factor
    smooth = (trained / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)


def _part(config: PreTrainedConfig, header: GgufHeader, rope: dict[str, Any]) -> dict[str, float]:
    """The share of a head's dimensions that is rotated, where the file says another than the configuration."""
    rotated = header.own("rope.dimension_count")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if rotated is None or rotated == int(size * rope.get("partial_rotary_factor", 1.0)):
        return {}
    return {"partial_rotary_factor": rotated / size}


def _unknown(header: GgufHeader, kind: str) -> ModelError:
    return ModelError(
        f"{header.path.name}: its rotary positions are scaled in a way ({kind}) that is not known; "
        "use the model's safetensors files"
    )
