"""Small tokenizers, each with one of the ways in which tokenizers treat what stands around an added token."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import tiny
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CONTROL = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<unk>")


def of_bytes() -> Any:
    return tiny.fresh_tokenizer(TEMPLATE).backend_tokenizer


def of_words() -> Any:
    """Unigram, whose vocabulary has "<unk>" as a word and no letter but these."""
    letters = "▁abcdeé ABC\n<|>usrntimek1234.,\u0301"
    words = [("▁a", -2.0), ("ab", -2.5), ("▁▁", -3.0), ("us", -3.0), ("er", -3.0)]
    vocabulary = [("<unk>", 0.0), *((letter, -5.0) for letter in dict.fromkeys(letters)), *words]
    return Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))


def made(backend: Any, pre: Any = None, normal: Any = None, extra: tuple[Any, ...] = (), **flags: bool) -> Any:
    from transformers import PreTrainedTokenizerFast

    if pre is not None:
        backend.pre_tokenizer = pre
    if normal is not None:
        backend.normalizer = normal
    flags = {"normalized": False, **flags}
    backend.add_special_tokens([AddedToken(token, special=True, **flags) for token in CONTROL])
    backend.add_tokens(list(extra))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def python() -> Any:
    """One that is written in Python: a letter a token, and spaces beside added tokens are theirs."""
    from transformers import PreTrainedTokenizer

    class Letters(PreTrainedTokenizer):
        def __init__(self) -> None:
            self.letters = {letter: number for number, letter in enumerate("\0abcdeérstuim nk1234.,<|>\n\u0301")}
            super().__init__(unk_token="<unk>", eos_token="<|end|>")

        @property
        def vocab_size(self) -> int:
            return len(self.letters)

        def get_vocab(self) -> dict[str, int]:
            return {**self.letters, **self.added_tokens_encoder}

        def _tokenize(self, text: str, **_options: Any) -> list[str]:
            return list(text)

        def _convert_token_to_id(self, token: str) -> int:
            return self.letters.get(token, 0)

        def _convert_id_to_token(self, index: int) -> str:
            return list(self.letters)[index]

    tokenizer = Letters()
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROL)})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def metaspace(scheme: str) -> Any:
    return pre_tokenizers.Metaspace(prepend_scheme=scheme)


def llama2() -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: made(of_bytes()),
    "nfc": lambda: made(of_bytes(), normal=normalizers.NFC()),
    "takes spaces after": lambda: made(of_bytes(), rstrip=True),
    "takes spaces before": lambda: made(of_bytes(), lstrip=True),
    "after nfc": lambda: made(of_bytes(), normal=normalizers.NFC(), normalized=True),
    "after strip": lambda: made(of_bytes(), normal=normalizers.Strip(), normalized=True),
    "single word": lambda: made(of_bytes(), single_word=True),
    "prefix space": lambda: made(of_bytes(), pre=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "tokens over a token's edge": lambda: made(
        of_bytes(), extra=tuple(AddedToken(text, normalized=False) for text in ("a<|en", "<|end|>a", "  "))
    ),
    "metaspace first": lambda: made(of_words(), pre=metaspace("first")),
    "metaspace always": lambda: made(of_words(), pre=metaspace("always")),
    "llama 2": lambda: made(of_words(), normal=llama2()),
    "llama 2, takes spaces after": lambda: made(of_words(), normal=llama2(), rstrip=True),
    "python": python,
    "strips": lambda: made(
        of_words(), pre=metaspace("always"), normal=normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    ),
}


@cache
def of_kind(kind: str) -> Any:
    """One that nobody changes."""
    return KINDS[kind]()
