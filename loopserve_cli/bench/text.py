"""A prompt of exactly so many tokens, for any model: a made-up dialogue through the model's chat template."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from loopserve_cli.demo.dialogues import SPARSE, Talk
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loopserve_cli.engine.loader import LoadedModel


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


def made_up(loaded: LoadedModel, tokens: int, answers: int) -> list[int]:
    """A dialogue of so many tokens; raises UsageError when it and `answers` more do not fit into the context."""
    check_room(loaded, f"--tokens {tokens} with its answers", tokens + answers, "give fewer")
    return prompt_ids(loaded.tokenizer, tokens)


def check_room(loaded: LoadedModel, what: str, needed: int, advice: str) -> None:
    """Refuse what does not fit into the model's context; raises UsageError."""
    if loaded.context_limit is not None and needed > loaded.context_limit:
        raise UsageError(f"{what} is {needed} tokens, but {loaded.name} reads at most {loaded.context_limit}; {advice}")
