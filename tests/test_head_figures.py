"""What each head computed: over every chunk, kept with its turn, and together the turn's own figures."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import tiny
from attention_oracle import tensors
from test_engine import some_ids
from test_prefill import SCALING, policy_of, sparse

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import TurnDone
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.profile import load_profile


def ended(engine: Engine, length: int, seed: int = 0) -> TurnDone:
    *_, last = engine.turn(some_ids(length, seed), SamplingOptions(max_new_tokens=2))
    assert isinstance(last, TurnDone)
    return last


def mean(rows: Any) -> float:
    return statistics.fmean(share for row in rows for share in row)


def test_the_heads_are_together_what_the_turn_reports() -> None:
    engine = sparse("llama", "prefill.alpha=0.5", "prefill.dense_rows=0")
    assert ended(engine, 300).heads is None  # nobody asked for them
    engine.keeps_heads = True
    done = ended(engine, 200, seed=1)
    assert done.heads is not None
    assert done.heads.layers == (0, 1)
    assert [len(row) for row in done.heads.density] == [len(row) for row in done.heads.coverage] == [4, 4]
    assert mean(done.heads.density) == pytest.approx(done.record.density)
    assert mean(done.heads.coverage) == pytest.approx(done.record.coverage)
    assert len({share for row in done.heads.density for share in row}) > 2


def test_a_turn_that_left_nothing_out_has_none() -> None:
    engine = sparse("llama", "prefill.min_new=100")
    engine.keeps_heads = True
    assert ended(engine, 50).heads is None


def test_decoding_says_what_share_of_the_keys_each_key_value_head_read() -> None:
    engine = Engine(tiny.loaded("llama"), load_profile("adakv").with_overrides(["keep.budget=32", "keep.window=8"]))
    engine.keeps_heads = True
    done = ended(engine, 300)
    assert done.heads is not None and done.heads.layers == ()
    assert done.heads.read_layers == (0, 1)
    assert [len(row) for row in done.heads.read] == [2, 2]
    stored = done.record.keys_stored
    assert stored is not None
    assert mean(done.heads.read) * stored == pytest.approx(done.record.keys_read, abs=0.5)
    assert len({share for row in done.heads.read for share in row}) > 1  # a budget is shared out unevenly
    assert all(0 < share < 0.5 for row in done.heads.read for share in row)


def test_chunks_count_by_what_they_could_compute() -> None:
    turn = PrefillTurn(policy_of("a_shape", sinks=1, local=2))
    for new in (10, 40):
        turn.attend(0, *(part[None] for part in tensors(4, 2, new, 100, 16)), SCALING)
    heads = turn.heads()
    assert heads is not None
    assert heads.density == ((pytest.approx(turn.report().density),) * 4,)
    assert heads.coverage == ((None,) * 4,)  # of a fixed pattern nobody knows it
    assert heads.to_json()["coverage"] == [[None] * 4]


def test_groups_that_were_not_asked_are_dense_in_their_own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = PrefillTurn(policy_of("a_shape", sinks=1, local=2))
    monkeypatch.setattr(type(turn.policy.routes), "asked", lambda *_: [1])
    turn.attend(3, *(part[None] for part in tensors(4, 2, 50, 100, 16)), SCALING)
    heads = turn.heads()
    assert heads is not None and heads.layers == (3,)
    [density] = heads.density
    assert density[:2] == (1.0, 1.0) and density[2] == density[3] < 0.5
    assert heads.coverage == ((1.0, 1.0, None, None),)
    assert mean(heads.density) == pytest.approx(turn.report().density)
