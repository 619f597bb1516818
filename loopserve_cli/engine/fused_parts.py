"""The parts of a model that fused kernels can run in place of its own code: which modules hold what.

They are found by the names under which transformers' decoders of Llama's kind keep them: a norm before attention and
one before the feed-forward part, each followed by an addition. Products of one input are joined where they can be.
The model's own modules stay as they are, and serve whatever asks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The architectures whose layers compute this and nothing else.
KINDS = frozenset("arcee dots1 llama mistral mixtral phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss".split())


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm's weight [C] and epsilon."""

    weight: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Products:
    """Linear layers of one input, called one by one, or as one whose output is cut into `sizes`."""

    modules: tuple[nn.Module, ...]
    sizes: tuple[int, ...]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs [n, size] for x [n, C]."""
        if len(self.modules) == 1:
            return self.modules[0](x).split(self.sizes, dim=-1)
        return tuple(module(x) for module in self.modules)


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One layer. The norms of a head's queries and keys are there or not; `feed` is for another gate than silu's."""

    attention: nn.Module
    before: Norm
    after: Norm
    heads: Products
    size: int
    query_norm: Norm | None
    key_norm: Norm | None
    output: nn.Module
    gate_up: Products | None
    feed: nn.Module


@dataclass(frozen=True, slots=True)
class ModelParts:
    """All that a forward pass goes through, in its order."""

    embedding: nn.Module
    rotary: nn.Module
    layers: tuple[LayerParts, ...]
    norm: Norm
    head: nn.Module


def find_parts(model: PreTrainedModel, join: bool) -> ModelParts | None:
    """The parts of a model of these kinds, None for one that has others, is spread, or masks more than the future.

    With `join` weights of one input are laid one after the other in memory, and the modules' own are views of them.
    """
    kind = model.config.model_type
    ours = type(model).__module__.startswith("transformers.models.") and kind in KINDS
    spread = any(hasattr(module, "_hf_hook") for module in model.modules())
    if not ours or spread or windowed(model.config):
        return None
    inner: Any = model.get_decoder()
    if inner.norm.weight.dtype != model.dtype:
        return None
    layers = tuple(_layer(layer, join) for layer in inner.layers)
    head: Any = model.get_output_embeddings()
    return ModelParts(inner.embed_tokens, inner.rotary_emb, layers, _norm(inner.norm), head)


def windowed(config: Any) -> bool:
    """Whether any layer has a sliding window."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds) != {"full_attention"}
    return getattr(config, "sliding_window", None) is not None


def joined(modules: Sequence[Any]) -> nn.Linear | None:
    """One linear layer that computes all of these, which become views of its weights; None where they are no such."""
    first = modules[0]
    alike = all(
        type(module) is nn.Linear
        and (module.weight.dtype, module.weight.device) == (first.weight.dtype, first.weight.device)
        and (module.bias is None) == (first.bias is None)
        for module in modules
    )
    if not alike:
        return None
    rows = [module.out_features for module in modules]
    whole = nn.Linear(first.in_features, sum(rows), bias=first.bias is not None, device="meta")
    for name in ("weight", "bias"):
        parts = [getattr(module, name) for module in modules]
        if parts[0] is None:
            continue
        together = torch.cat([part.data for part in parts])
        setattr(whole, name, nn.Parameter(together, requires_grad=False))
        for part, view in zip(parts, together.split(rows), strict=True):
            part.data = view
    return whole


def _layer(layer: Any, join: bool) -> LayerParts:
    attention, feed = layer.self_attn, layer.mlp
    size = int(attention.head_dim)
    if hasattr(attention, "qkv_proj"):
        rows, outer = attention.qkv_proj.out_features, attention.o_proj.in_features
        one = (rows - outer) // 2
        heads = Products((attention.qkv_proj,), (outer, one, one))
    else:
        heads = _products((attention.q_proj, attention.k_proj, attention.v_proj), join)
    norms = [_norm(getattr(attention, name)) if hasattr(attention, name) else None for name in ("q_norm", "k_norm")]
    return LayerParts(
        attention,
        _norm(layer.input_layernorm),
        _norm(layer.post_attention_layernorm),
        heads,
        size,
        norms[0],
        norms[1],
        attention.o_proj,
        _gate_up(feed, join),
        feed,
    )


def _gate_up(feed: Any, join: bool) -> Products | None:
    """The two products before a gate of silu; None for a feed-forward part that has other ones."""
    act = getattr(feed, "act_fn", None) or getattr(feed, "activation_fn", None)
    if not isinstance(act, nn.SiLU) and type(act).__name__ != "SiLUActivation":
        return None
    if hasattr(feed, "gate_up_proj"):
        half = feed.gate_up_proj.out_features // 2
        return Products((feed.gate_up_proj,), (half, half))
    return _products((feed.gate_proj, feed.up_proj), join)


def _products(modules: tuple[Any, ...], join: bool) -> Products:
    try:
        whole = joined(modules) if join else None
    except torch.OutOfMemoryError:  # for a moment they lie twice; apart they are as good, and a launch or two more
        whole = None
    return Products(modules if whole is None else (whole,), tuple(module.out_features for module in modules))


def _norm(norm: Any) -> Norm:
    return Norm(norm.weight, float(norm.variance_epsilon))
