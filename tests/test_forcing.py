"""A given answer decoded as generation would have: the same steps, and nothing of it left."""

from __future__ import annotations

import pytest
import tiny
from test_aside import assert_same, state
from test_engine import run, some_ids
from test_tiers import PROFILES, engine_of
from torch import Tensor

from loopserve_cli.engine.engine import Engine

UNEVEN = ("full", "adakv")


def forced(engine: Engine, ids: list[int]) -> list[Tensor]:
    """The logits [V] before every token of `ids`, as the answer of the turn that just ended."""
    seen: list[Tensor] = []
    assert engine.force(ids, lambda logits: seen.append(logits[0].clone())) == len(ids)
    return seen


def two_turns(engine: Engine, new: int = 40) -> list[int]:
    engine.keeps_start = True
    run(engine, some_ids(60), max_new_tokens=20)
    return run(engine, some_ids(50, seed=1), max_new_tokens=new)[0]


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
@pytest.mark.parametrize("profile", PROFILES)
def test_its_own_answer_is_most_likely_at_every_place(profile: str, tier: str) -> None:
    if tier == "evict" and profile in UNEVEN:
        pytest.skip("needs the same number of keys in every head")
    engine = engine_of(profile, tier)
    answer = two_turns(engine)
    before = state(engine)
    assert [int(row.argmax()) for row in forced(engine, answer)] == answer
    assert_same(before, state(engine))


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_of_every_architecture(kind: str) -> None:
    engine = engine_of("snapkv", "device", kind)
    answer = two_turns(engine)
    assert [int(row.argmax()) for row in forced(engine, answer)] == answer
