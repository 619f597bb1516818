"""Positions that depend on how long the dialogue is: what went stale is read again, as transformers does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import architectures
import pytest
from models_table import answer, generated, loaded

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import TurnDone
from loopserve_cli.engine.rotary import LengthDependence, length_dependence
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord

TRAINED = 60
FACTORS = {"short_factor": [1.0 + 0.02 * i for i in range(8)], "long_factor": [1.0 + 6.0 * i for i in range(8)]}
LONGROPE: dict[str, Any] = {
    "sliding_window": None,
    "original_max_position_embeddings": TRAINED,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": TRAINED,
        **FACTORS,
    },
}
DYNAMIC: dict[str, Any] = {
    "max_position_embeddings": TRAINED,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}
MODELS = {"longrope": ("phi3", LONGROPE), "dynamic": ("llama", DYNAMIC)}


def made(name: str, profile: str = "full") -> tuple[Engine, Any]:
    """An engine, and the same model as transformers runs it."""
    kind, options = MODELS[name]
    reference = architectures.random_model(architectures.configuration(kind, **options), "eager")
    reference.generation_config.do_sample = False
    return Engine(replace(loaded(kind, **options), context_limit=4096), load_profile(profile)), reference


def turn(engine: Engine, reference: Any, held: list[int], new: range) -> TurnRecord:
    """One turn after what is held, which grows; its answer must be `generate`'s."""
    asked = held[len(engine.tokens) :] + list(new)
    events = list(engine.turn(asked, SamplingOptions(max_new_tokens=40)))
    assert isinstance(events[-1], TurnDone)
    ours = [event.id for event in events if hasattr(event, "id")]
    held += new
    assert ours == generated(reference, held)
    held += ours
    return events[-1].record


@pytest.mark.parametrize("name", MODELS)
def test_one_message_crosses(name: str) -> None:
    engine, reference = made(name)
    held: list[int] = []
    first = turn(engine, reference, held, range(100, 105))
    assert first.tokens_rolled_back == 0
    before = len(engine.tokens)
    record = turn(engine, reference, held, range(200, 230))
    assert record.tokens_rolled_back == before and record.tokens_cached == 0
    assert record.tokens_new == before + 1 + 30, "the first answer's last token, and the message"


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_crosses(name: str) -> None:
    engine, reference = made(name)
    held: list[int] = []
    record = turn(engine, reference, held, range(100, 140))
    assert len(held) > TRAINED > 40
    assert record.tokens_rolled_back == (TRAINED if name == "longrope" else 0)
    again = turn(engine, reference, held, range(200, 205))
    assert again.tokens_cached == (0 if name == "dynamic" else again.tokens_logical - again.tokens_new - 40)


@pytest.mark.parametrize("name", MODELS)
def test_a_first_message_longer_than_a_chunk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from loopserve_cli.engine.chunks import PREFILL_CHUNK

    monkeypatch.setitem(PREFILL_CHUNK, "cpu", 16)
    engine, reference = made(name)
    turn(engine, reference, [], range(100, 190))


@pytest.mark.parametrize("name", MODELS)
def test_the_way_back(name: str) -> None:
    engine, reference = made(name)
    held: list[int] = []
    turn(engine, reference, held, range(100, 105))
    early = list(held)
    turn(engine, reference, held, range(200, 260))
    engine.rewind(30)
    assert engine.tokens == [], "as it was then, positions were others"
    turn(engine, reference, early[:30], range(300, 304))


def test_beyond_the_trained_length_longrope_keeps_what_it_has() -> None:
    engine, reference = made("longrope")
    held: list[int] = []
    turn(engine, reference, held, range(100, 190))
    engine.rewind(80)
    record = turn(engine, reference, held[:80], range(200, 210))
    assert record.tokens_cached == 80 and record.tokens_rolled_back == 0


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
def test_other_profiles_and_tiers_cross_too(tier: str) -> None:
    settings = ["prefill.min_new=1", "prefill.min_keys=1", "keep.budget=24", "keep.interval=4", f"retain.tier={tier}"]
    engine, _ = made("longrope")
    engine.set_profile(load_profile("loopserve").with_overrides(settings))
    for first in (100, 200, 300):
        assert len(answer(engine, list(range(first, first + 30)))) > 0
    assert len(engine.tokens) > TRAINED


def test_the_record_counts_what_a_dialogue_rolled_back() -> None:
    """What the template rewrote, and what went stale, are both read again."""
    engine, _ = made("longrope")
    talk = Conversation(engine)
    records = []
    for text in ("The room of Miro is 417.", "The pet of Bazo is a fox, and his desk is 204. His badge is 77. " * 2):
        (*_, done) = talk.ask(text, SamplingOptions(max_new_tokens=8))
        assert isinstance(done, TurnDone)
        records.append(done.record)
    assert records[0].tokens_rolled_back == 0
    assert records[1].tokens_cached == 0 and (records[1].tokens_rolled_back or 0) > 8


@pytest.mark.parametrize(
    ("rope", "found"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}, None),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, None),
        (DYNAMIC["rope_parameters"], LengthDependence(4096, every_length=True)),
    ],
)
def test_who_depends_on_the_length(rope: dict[str, Any], found: LengthDependence | None) -> None:
    assert length_dependence(architectures.configuration("llama", rope_parameters=rope)) == found
    longrope = architectures.configuration("phi3", **LONGROPE)
    assert length_dependence(longrope) == LengthDependence(TRAINED, every_length=False)
