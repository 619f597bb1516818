"""A GGUF file's tokenizer as the model knows it: no token beyond its vocabulary, and every one that ends a turn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from loopserve_cli.engine.gguf import header_of
from loopserve_cli.engine.sources import Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that end a turn, as llama.cpp knows them by their text; a file names one of them only.
ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|return|>", "<|endoftext|>")
END_IDS = ("eos", "eot", "eom")
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
# How llama.cpp calls splits that are GPT-2's, or GPT-2's with digits apart, which such vocabularies never join.
AS_GPT2 = "default gpt-2 phi-2 mpt olmo jais trillion smollm starcoder refact command-r codeshell minerva-7b".split()


def own_vocabulary(tokenizer: PreTrainedTokenizerBase, source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer with the file's special tokens, and without tokens that the file does not list.

    The class that transformers builds it with adds its own, such as GPT-2's <|endoftext|>, for which the model has no
    embedding.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = header_of(source).settings
    ids = {name: settings.get(f"tokenizer.ggml.{key}_token_id") for name, key in SPECIAL.items()}
    for name, id in ids.items():  # an older transformers takes others
        setattr(tokenizer, name, None if id is None else tokenizer.convert_ids_to_tokens(id))
    table = json.loads(tokenizer.backend_tokenizer.to_str())
    count = settings["tokenizer.ggml.tokens"]
    foreign = {token["content"] for token in table["added_tokens"] if token["id"] >= count}
    if not foreign:
        return tokenizer
    table["added_tokens"] = [token for token in table["added_tokens"] if token["content"] not in foreign]
    if table["model"].get("unk_token") in foreign:
        table["model"]["unk_token"] = None
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(table)),
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in tokenizer.special_tokens_map.items() if token not in foreign},
    )


def unknown_split(source: Source) -> str | None:
    """The name of a way to split text that transformers' reader takes for GPT-2's; None where it does it rightly."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as known
    except ImportError:  # an older transformers has no such table
        return None
    settings = header_of(source).settings
    split = settings.get("tokenizer.ggml.pre")
    if split is None or settings.get("tokenizer.ggml.model") != "gpt2":
        return None
    return None if split in known or split in AS_GPT2 else str(split)


def end_ids(source: Source, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a turn: those the file names, and special tokens that are known to."""
    settings = header_of(source).settings
    named = {settings.get(f"tokenizer.ggml.{end}_token_id") for end in END_IDS}
    known = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special and str(token) in ENDS}
    return sorted(known | {id for id in named if isinstance(id, int)})
