"""A tiny random model of every decoder that transformers has, whatever its configuration calls its sizes."""

from __future__ import annotations

from typing import Any

WINDOW = 24
# By the names that configurations use. One that a configuration does not have is not set.
SMALL: dict[str, Any] = {
    "vocab_size": 1024,
    "vocab_size_per_layer_input": 1024,
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "word_embed_proj_dim": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 128,
    "intermediate_size_mlp": 128,
    "shared_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "ffn_dim": 128,
    "n_inner": 128,
    "num_hidden_layers": 4,
    "n_layer": 4,
    "n_layers": 4,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
    "global_head_dim": 16,
    "kv_channels": 16,
    "swa_head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "n_positions": 4096,
    "n_ctx": 4096,
    "max_seq_len": 4096,
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "top_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "zero_expert_num": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 2,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "index_topk": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "hidden_size_per_layer_input": 16,
    "laurel_rank": 8,
    "num_kv_shared_layers": 0,
    "query_pre_attn_scalar": 16,
    "dim_model_base": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SHARED = {
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}
# What a kind needs beyond that, or instead.
ALSO: dict[str, dict[str, Any]] = dict.fromkeys(
    (
        "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 youtu "
        "bailing_hybrid kimi_linear sarvam_mla"
    ).split(),
    {"num_key_value_heads": 4, "head_dim": 8},  # every head has keys of its own, of the rotary part's size
) | {
    "afmoe": {"num_dense_layers": 1},
    "dory": {
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp", "full_attention", "mlp"],
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
    },
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), ROPE)},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "zaya": {"num_experts_per_tok": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    # The last two layers read the keys of the two before, one with a window and one without, as those models do.
    "gemma3n_text": SHARED | {"activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0]},
    "gemma4_text": SHARED,
}


def text_kinds() -> list[str]:
    """Every model type that transformers' AutoModelForCausalLM can make."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def configuration(kind: str, **options: Any) -> Any:
    """The kind's own configuration with small sizes; `options` come last."""
    from transformers import AutoConfig

    plain = AutoConfig.for_model(kind)
    return AutoConfig.for_model(kind, **_small(plain, ALSO.get(kind, {}) | options))


def _small(plain: Any, options: dict[str, Any]) -> dict[str, Any]:
    known = plain.to_dict()
    names = {**plain.attribute_map, **{name: name for name in known}}
    found = {name: value for name, value in SMALL.items() if name in names}
    if found.get("sliding_window") and known.get("sliding_window") is None:
        del found["sliding_window"]
    per_layer = {name: value for name, value in known.items() if _is_per_layer(name, value, plain)}
    layers = options.get("num_hidden_layers", 4)
    found |= {name: list(value[-layers:]) for name, value in per_layer.items()}
    if "per_layer_config" in known:
        found["per_layer_config"] = {}
    for name in plain.sub_configs:
        part = getattr(plain, name, None)
        if part is not None:
            found[name] = {**part.to_dict(), **_small(part, options if name == "text_config" else {})}
    return {**found, **options}


def _is_per_layer(name: str, value: Any, plain: Any) -> bool:
    layers = getattr(plain, "num_hidden_layers", None)
    return isinstance(value, list | tuple) and layers is not None and len(value) == layers and name != "architectures"


def random_model(config: Any, attention: str, seed: int = 0, scale: float = 0.12) -> Any:
    """The model with weights wide enough that greedy choices are no ties; the same seed gives the same ones."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise * scale)
            else:  # norms, biases, sinks: their own start, and no two alike
                parameter.add_(noise * 0.1)
    return made
