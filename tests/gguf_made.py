"""GGUF files of tiny random models, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny

# llama.cpp's names of a Llama's tensors, by transformers' (without "model." and ".weight").
BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """A tensor's name in the file."""
    name = name.removeprefix("model.").removesuffix(".weight")
    if name in WHOLE:
        return f"{WHOLE[name]}.weight"
    _, number, rest = name.split(".", 2)
    return f"blk.{number}.{BLOCK[rest]}.weight"


def interleaved(weight: Any, heads: int) -> Any:
    """Rows of a head in the order that llama.cpp rotates them: pairs side by side, where transformers has halves."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def tensors_of(model: Any) -> dict[str, Any]:
    """The model's tensors as they stand in the file, float32."""
    config, found = model.config, {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().float().numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                value = interleaved(value, heads)
        found[gguf_name(name)] = np.ascontiguousarray(value)
    return found


def write(path: Path, model: Any, tensors: dict[str, Any] | None = None, **settings: Any) -> Path:
    """The model and the tiny tokenizer in one file; `settings` are further keys, None as a value leaves one out."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    settings_of(writer, model.config, settings)
    for name, value in (tensors_of(model) if tensors is None else tensors).items():
        writer.add_tensor(name, value)
    close(writer)
    return path


def settings_of(writer: Any, config: Any, settings: dict[str, Any]) -> None:
    """What the file says of the model, and its tokenizer."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokenizer = tiny.tokenizer()
    table = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = {token["content"] for token in table["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(settings.pop("pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in table["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if settings.pop("chat_template", True):
        writer.add_chat_template(tokenizer.chat_template)
    for key, value in settings.items():
        name = f"llama.{key.replace('__', '.')}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)


def write_parts(folder: Path, model: Any, count: int) -> list[Path]:
    """The model in so many files, the settings in the first of them."""
    from gguf import GGUFWriter

    tensors = list(tensors_of(model).items())
    share = -(-len(tensors) // count)
    files = []
    for number in range(count):
        files.append(folder / f"tiny-{number + 1:05}-of-{count:05}.gguf")
        writer = GGUFWriter(files[-1], "llama")
        if number == 0:
            settings_of(writer, model.config, {})
        for name, value in tensors[number * share : (number + 1) * share]:
            writer.add_tensor(name, value)
        close(writer)
    return files


def close(writer: Any) -> None:
    """Everything on disk."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
