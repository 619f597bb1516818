"""A prompt of exactly so many tokens, for any model: a made-up dialogue through the model's chat template."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from loopserve_cli.demo.dialogues import SPARSE, Talk
from loopserve_cli.messages import Message
from loopserve_cli.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompt_ids(tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int = 0) -> list[int]:
    """The first `tokens` ids of a long dialogue with pasted reports; the same seed gives the same ids."""
    template = Template(tokenizer)
    messages: list[Message] = []
    characters, wanted = 0, 4 * tokens
    for turn in Talk(Random(seed), mix=SPARSE).turns():
        messages += [Message("user", turn.user), Message("assistant", turn.assistant)]
        characters += len(turn.user) + len(turn.assistant)
        if characters >= wanted:
            ids = template.ids(messages, generation_prompt=False)
            if len(ids) >= tokens:
                return ids[:tokens]
            wanted *= 2
    raise AssertionError("a talk has no end")
