"""A model of a known shape with random weights, made where it runs: for timings, in which the weights do not matter.

Nothing is downloaded and nothing passes through the host's memory. What it answers means nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from loopserve_cli.shapes import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SEED = 0


def random_config(shape: Shape, speaks: PreTrainedConfig) -> PreTrainedConfig:
    """The shape as transformers configures it, with the special ids of `speaks`, whose tokenizer it is to use.

    The rotary positions are plain: what Llama 3 and Qwen do to them beyond their trained length costs no time.
    """
    from transformers import AutoConfig

    assert shape.vocabulary >= speaks.vocab_size, "every id of the tokenizer needs an embedding"
    return AutoConfig.for_model(
        shape.kind,
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        bos_token_id=speaks.bos_token_id,
        eos_token_id=speaks.eos_token_id,
        pad_token_id=speaks.pad_token_id,
        dtype="bfloat16",
    )


def random_model(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, attention: str) -> PreTrainedModel:
    """The model on one device; the same configuration, dtype and device give the same weights each time.

    Torch's own random state is left as it was.
    """
    from transformers import AutoModelForCausalLM

    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), device:
        torch.manual_seed(SEED)
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
