"""Tiny random models of every architecture the engine is tested with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from loopserve_cli.engine.attention import ATTENTION_NAME, register
from loopserve_cli.engine.loader import LoadedModel, stop_ids

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "phi3", "gemma2", "gemma3_text")
WINDOW = 24
# Profiles whose rows with most architectures are slow tests, so that the others stay short.
MOSTLY_SLOW = ("quest", "expected-attention")


def with_profiles(profiles: Sequence[str]) -> list[Any]:
    """Every architecture with every profile, (kind, profile), as parameters of a test."""
    slow = {kind: kind not in ("llama", "gemma3_text") for kind in ARCHITECTURES}
    return [
        pytest.param(kind, profile, marks=[pytest.mark.slow] if slow[kind] and profile in MOSTLY_SLOW else [])
        for kind in ARCHITECTURES
        for profile in profiles
    ]


def configuration(kind: str) -> Any:
    """Two to four layers, four query heads over two key-value heads, a sliding window where the kind has one."""
    from transformers import AutoConfig

    common = {
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if kind == "mistral":
        common["sliding_window"] = WINDOW
    if kind.startswith("gemma"):
        common |= {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
        common["query_pre_attn_scalar"] = 16
    return AutoConfig.for_model(kind, **common)


@cache
def tokenizer() -> Any:
    """The demo model's tokenizer, from fewer dialogues."""
    from loopserve_cli.demo.tokenizer import build

    return build(dialogues=200)


def fresh_tokenizer(chat_template: str | None) -> Any:
    """A copy of the tokenizer with another chat template."""
    import copy

    made = copy.deepcopy(tokenizer())
    made.chat_template = chat_template
    return made


def model(kind: str, attention: str, seed: int = 0) -> Any:
    """A random model of that kind, with weights wide enough that greedy choices are not ties."""
    from transformers import AutoModelForCausalLM

    register()
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(configuration(kind), attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    return made


def loaded(kind: str, seed: int = 0) -> LoadedModel:
    """The same random model as the engine takes it."""
    made = model(kind, ATTENTION_NAME, seed)
    return LoadedModel(
        model=made,
        tokenizer=tokenizer(),
        name=f"tiny-{kind}",
        device=torch.device("cpu"),
        layers=made.config.num_hidden_layers,
        context_limit=made.config.max_position_embeddings,
        stop_ids=stop_ids(made, tokenizer()),
    )
