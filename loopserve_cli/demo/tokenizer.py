"""The demo model's tokenizer: byte-level BPE of 1,024 tokens, single digits, a plain chat template."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from loopserve_cli.demo import language as lang
from loopserve_cli.demo.dialogues import MIXES, Talk

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 1024
# Fixed apart from what training asks: other shares would give other texts, other merges, another vocabulary.
CORPUS_RARER = (0.06, 0.06, 0.03)
SPECIALS = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, BOS, END, SYSTEM, USER, ASSISTANT = range(len(SPECIALS))
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def corpus(seed: int, dialogues: int) -> Iterator[str]:
    """Texts of many short dialogues, for learning the merges."""
    rng = Random(seed)
    # Syllables on their own, often: so that a name is two tokens, cut where its syllables are.
    for consonant, vowel in itertools.product(lang.CONSONANTS, lang.VOWELS):
        yield from itertools.repeat(f" {consonant.upper()}{vowel}", dialogues)
        yield from itertools.repeat(f"{consonant}{vowel}", dialogues)
    for _ in range(dialogues):
        for turn in itertools.islice(Talk(rng, mix=rng.choice(MIXES), rarer=CORPUS_RARER).turns(), 30):
            yield turn.user
            yield turn.assistant


def build(seed: int = 0, dialogues: int = 2000) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same seed gives the same merges."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # A digit keeps its leading space but never joins another digit: "room 417" is three digit tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed, dialogues), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIALS[BOS],
        eos_token=SPECIALS[END],
        pad_token=SPECIALS[PAD],
        chat_template=CHAT_TEMPLATE,
        model_max_length=65536,
        clean_up_tokenization_spaces=False,
    )
