"""What a model computes keys and values from, as a few short words: the same on every load, others for another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Where a model came from and how it is run: the same model has them otherwise elsewhere. Dtype and quant stand apart.
NOT_THE_MODEL = ("transformers_version", "dtype", "torch_dtype", "quantization_config", "use_cache", "architectures")
SAMPLED_WORDS = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """A model's name, and what must agree: dtype, quant, and hashes of configuration, weights and tokenizer."""

    model: str
    config: str
    weights: str
    tokenizer: str
    dtype: str
    quant: str | None

    def difference(self, now: Identity) -> str | None:
        """How what was saved under this identity differs from what runs now; None where keys and values agree."""
        # Weights differ in another dtype as well, so they come after it.
        if self.config != now.config:
            return f"with another model ({self.model}, now {now.model})"
        if self.dtype != now.dtype:
            return f"in {self.dtype} (now {now.dtype}; see --dtype)"
        if self.quant != now.quant:
            return f"with {self.quant or 'no'} quantisation (now {now.quant or 'none'}; see --quant)"
        if self.weights != now.weights:
            names = self.model if self.model == now.model else f"{self.model}, now {now.model}"
            return f"with other weights ({names})"
        if self.tokenizer != now.tokenizer:
            return "with another tokenizer or chat template"
        return None


def identify(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, quant: str | None) -> Identity:
    """A loaded model's identity; reads all of its weights once, where they are."""
    return Identity(
        model=name,
        config=config_hash(model.config),
        weights=_weights(model),
        tokenizer=_tokenizer(tokenizer),
        dtype=str(model.dtype).removeprefix("torch."),
        quant=quant,
    )


def config_hash(config: PreTrainedConfig) -> str:
    """What a configuration says of the model itself."""
    return _hash(json.dumps(_own(config.to_dict()), sort_keys=True, default=str).encode())


def words(tensor: Tensor) -> Tensor:
    """A tensor's bytes as int64 [n], with zeros after the last."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if raw.numel() % 8 or raw.storage_offset() % 8:
        padded = raw.new_zeros(-(-raw.numel() // 8) * 8)
        padded[: raw.numel()] = raw
        raw = padded
    return raw.view(torch.int64)


@torch.inference_mode()
def _weights(model: PreTrainedModel) -> str:
    """Of every weight its name, shape, dtype, the sum of all its bytes and some words that tell their order."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype};".encode())
        whole = words(weight)
        sample = whole[:: max(1, len(whole) // SAMPLED_WORDS)]
        told = torch.cat([whole.sum()[None], sample])
        digest.update(told.cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that turns text to ids, and the chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    table = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    rest = json.dumps([tokenizer.chat_template, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return _hash(table.encode() + rest.encode())


def _own(config: Any) -> Any:
    """A configuration without what says nothing of the model itself."""
    if not isinstance(config, dict):
        return config
    return {key: _own(value) for key, value in config.items() if key not in NOT_THE_MODEL and str(key)[:1] != "_"}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
