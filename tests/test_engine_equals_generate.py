"""Greedy full attention is transformers' `generate`, token for token, over several turns."""

from __future__ import annotations

from random import Random

import pytest
import tiny
import torch
from transformers import DynamicCache

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.engine.model_call import cache_argument
from loopserve_cli.profile import load_profile

TURNS = 5
NEW = 12


def run_turn(engine: Engine, ids: list[int], **options: object) -> tuple[list[int], TurnDone]:
    """All tokens of one turn, and its end."""
    events = list(engine.turn(ids, SamplingOptions(max_new_tokens=NEW, **options)))  # type: ignore[arg-type]
    assert isinstance(events[-1], TurnDone)
    return [e.id for e in events if isinstance(e, Token)], events[-1]


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_five_turns_equal_generate(kind: str, penalty: float) -> None:
    engine = Engine(tiny.loaded(kind), load_profile("full"))
    reference = tiny.model(kind, "eager")
    rng, held = Random(kind), []
    for turn in range(TURNS):
        new = [rng.randrange(6, 1024) for _ in range(rng.choice((1, 3, 40)))]
        question = held[len(engine.tokens) :] + new
        ours, done = run_turn(engine, question, repetition_penalty=penalty)
        held += new
        with torch.inference_mode():
            theirs = reference.generate(
                torch.tensor([held]),
                attention_mask=torch.ones(1, len(held), dtype=torch.long),
                do_sample=False,
                max_new_tokens=NEW,
                repetition_penalty=penalty,
                **cache_argument(reference, DynamicCache()),
            )[0, len(held) :].tolist()
        assert ours == theirs, f"turn {turn}"
        assert done.record.tokens_new == len(question)
        assert done.record.tokens_cached == len(held) - len(question)
        held += ours
    assert len(set(held)) > 30, "the models' choices must not collapse to one token"
