from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import tiny
import tokenizer_kinds
from tokenizers import models, normalizers, pre_tokenizers

from loopserve_cli.errors import ContextLimitError
from loopserve_cli.messages import Message
from loopserve_cli.template import Template
from loopserve_cli.template.least import least_of


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_the_bound_is_never_more_than_the_tokens(kind: str) -> None:
    tokenizer = tokenizer_kinds.of_kind(kind)
    least = least_of(tokenizer)
    assert (least is None) == (kind in {"python", "strips", "after strip"} or "metaspace" in kind or "llama" in kind)
    if least is None:
        return
    draw = random.Random(kind)
    parts = [*tokenizer.get_vocab(), " ", "  ", "a", "e\u0301", "\U0001f600", "\u1100\u1161\u11a8", "\n", "<|end|>"]
    for _ in range(300):
        text = "".join(draw.choices(parts, k=draw.randint(1, 40)))
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert least.of(text) <= len(ids), text


def test_the_widest_token_is_the_longest_of_the_vocabulary() -> None:
    least = least_of(tiny.tokenizer())
    assert least is not None
    assert least.widest == max(map(len, tiny.tokenizer().get_vocab()))
    assert least.of("a" * (10 * least.widest + 1)) == 11
    composed = least_of(tokenizer_kinds.of_kind("nfc"))
    assert composed is not None
    assert composed.widest == 4 * least_of(tokenizer_kinds.of_kind("bytes")).widest  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        {"normal": normalizers.Replace("aa", "a")},
        {"normal": normalizers.StripAccents()},
        {"pre": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel()])},
    ],
)
def test_where_letters_may_go_there_is_no_bound(change: dict[str, object]) -> None:
    assert least_of(tokenizer_kinds.made(tokenizer_kinds.of_bytes(), **change)) is None  # type: ignore[arg-type]


def test_a_vocabulary_without_every_byte_has_no_bound() -> None:
    backend = SimpleNamespace(
        model=models.BPE({"a": 0}, [], byte_fallback=True),
        normalizer=None,
        pre_tokenizer=None,
        get_vocab=lambda _added: {"a": 0},
    )
    assert least_of(SimpleNamespace(backend_tokenizer=backend)) is None  # type: ignore[arg-type]


def test_a_dialogue_that_cannot_fit_is_not_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    template = Template(tiny.tokenizer())
    monkeypatch.setattr(template, "_pieces", None)
    limit = 100
    with pytest.raises(ContextLimitError, match=r"at least 4,616 tokens, but the model reads at most 100"):
        template.ids([Message("user", "a" * 60_000)], True, limit)
    # What is not said by a user counts once it is written.
    answered = [Message("user", "a"), Message("assistant", "b" * 60_000)]
    with pytest.raises(ContextLimitError, match="at least 4,6"):
        template.ids(answered, False, limit)
