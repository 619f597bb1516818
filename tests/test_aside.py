"""Detours: turns that leave nothing, exactly, and what the engine tells of the keys and lines that it chose."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import tiny
import torch
from recorded_step import RecordedCapture
from test_conversation import ask
from test_engine import run, some_ids
from test_stepper import engine_of as captured_engine_of
from test_stepper import gpu_like  # noqa: F401
from test_tiers import PROFILES, engine_of
from torch import Tensor

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.messages import Message
from loopserve_cli.policies.prefill.chosen import ChosenLines
from loopserve_cli.profile import Profile, load_profile
from loopserve_kernels.chosen_lines import Lines

CHOOSING = ["prefill.min_new=1", "prefill.min_keys=1", "prefill.most_density=1", "prefill.local=4", "prefill.sinks=1"]


@torch.inference_mode()
def state(engine: Engine) -> dict[str, Any]:
    """All that a dialogue is, its keys and values copied."""
    rows = [[part.clone() for part in layer.rows()] for layer in engine._store.layers]
    names = (engine.profile.name, engine.policy, engine.keep, engine._state)
    return {"rows": rows, "tokens": list(engine.tokens), "made_under": dict(engine.made_under), "names": names}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for one, other in zip(before.pop("rows"), after.pop("rows"), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert before == after


def full_in(engine: Engine) -> Profile:
    return load_profile("full").with_overrides([f"retain.tier={engine.profile.retain['tier']}"])


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_detour_over_the_last_turns_under_full_attention_leaves_the_store_bit_for_bit(
    profile: str, tier: str
) -> None:
    engine, straight = engine_of(profile, tier), engine_of(profile, tier)
    for one in (engine, straight):
        run(one, some_ids(60), max_new_tokens=20)
        began = len(one.tokens)
        run(one, some_ids(30, seed=1), max_new_tokens=20)
    before = state(engine)
    with engine.aside(full_in(engine)):
        assert engine.profile.attends_to_everything
        engine.rewind(began + 5)
        engine.rewind(began)
        _, record = run(engine, some_ids(90, seed=2), max_new_tokens=200)
        assert record.keys_read == record.keys_stored  # all was read
        engine.rewind(began - 10)
        run(engine, some_ids(7, seed=3), max_new_tokens=3)
    assert_same(before, state(engine))
    for seed in (4, 5):
        expected, theirs = run(straight, some_ids(40, seed=seed), max_new_tokens=25)
        got, ours = run(engine, some_ids(40, seed=seed), max_new_tokens=25)
        assert got == expected
        assert (ours.keys_read, ours.tokens_cached) == (theirs.keys_read, theirs.tokens_cached)


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_a_detour_leaves_every_architecture_s_store(kind: str) -> None:
    engine = engine_of("snapkv", "device", kind)
    run(engine, some_ids(60), max_new_tokens=10)
    before = state(engine)
    with engine.aside(full_in(engine)):
        engine.rewind(20)
        run(engine, some_ids(70, seed=1), max_new_tokens=10)
    assert_same(before, state(engine))


def test_a_detour_gives_the_answer_that_full_attention_would_have_given_on_this_history() -> None:
    engine, switched = engine_of("streaming-llm", "device"), engine_of("streaming-llm", "device")
    for one in (engine, switched):
        run(one, some_ids(60), max_new_tokens=20)
    switched.set_profile(load_profile("full"))
    began = len(engine.tokens)
    ours, _ = run(engine, some_ids(30, seed=1), max_new_tokens=40)
    with engine.aside(full_in(engine)):
        engine.rewind(began)
        theirs, _ = run(engine, some_ids(30, seed=1), max_new_tokens=40)
    expected, _ = run(switched, some_ids(30, seed=1), max_new_tokens=40)
    assert theirs == expected
    assert theirs != ours  # else nothing was compared


@pytest.mark.usefixtures("gpu_like")
@pytest.mark.parametrize("profile", ["full", "loopserve", "snapkv"])
def test_captured_steps_are_replayed_after_a_detour_and_are_right(profile: str) -> None:
    engine, straight = captured_engine_of(profile, RecordedCapture), captured_engine_of(profile, RecordedCapture)
    for one in (engine, straight):
        run(one, some_ids(60), max_new_tokens=14)
        run(one, some_ids(20, seed=1), max_new_tokens=14)
    with engine.aside(load_profile("full")):
        engine.rewind(70)
        run(engine, some_ids(50, seed=2), max_new_tokens=14)
    expected, theirs = run(straight, some_ids(20, seed=3), max_new_tokens=14)
    got, ours = run(engine, some_ids(20, seed=3), max_new_tokens=14)
    assert got == expected
    assert ours.graph_replays == theirs.graph_replays and (ours.graph_replays or 0) > 5


def test_a_detour_that_fails_leaves_all_as_it_was() -> None:
    engine = engine_of("snapkv", "device")
    run(engine, some_ids(60), max_new_tokens=5)
    before = state(engine)
    with pytest.raises(ZeroDivisionError), engine.aside(full_in(engine)):
        engine.rewind(3)
        for _ in engine.turn(some_ids(20), SamplingOptions()):
            raise ZeroDivisionError
    assert_same(before, state(engine))


@pytest.mark.parametrize(("profile", "tier"), [("loopserve", "device"), ("full", "host"), ("snapkv", "evict")])
def test_a_question_aside_leaves_the_dialogue_and_what_comes_after_it_as_without(profile: str, tier: str) -> None:
    astray, straight = (Conversation(engine_of(profile, tier), date="2026-01-01") for _ in range(2))
    for talk in (astray, straight):
        ask(talk, "The room of Miro is 417.", SamplingOptions(max_new_tokens=30))
    messages, tokens = list(astray.messages), list(astray.engine.tokens)
    with astray.aside():
        ask(astray, "What is the room of Miro? Say it twice.", SamplingOptions(max_new_tokens=30))
        assert astray.turns == 2
        if tier != "evict":
            ask(astray, "And again.", SamplingOptions(max_new_tokens=30))
    assert astray.messages == messages
    # What the next turn reads again is gone already where a tier evicts.
    assert astray.engine.tokens == (tokens if tier != "evict" else tokens[: len(astray.engine.tokens)])
    for text in ("The key of Miro is red.", "What is red?"):
        records = [ask(talk, text, SamplingOptions(max_new_tokens=30)) for talk in (astray, straight)]
        assert records[0].output_text == records[1].output_text
        assert records[0].tokens_cached == records[1].tokens_cached
    rows = [state(talk.engine)["rows"] for talk in (astray, straight)]
    assert all(torch.equal(one[0], other[0]) for one, other in zip(*rows, strict=True))


@pytest.mark.parametrize("profile", ["full", "snapkv"])
def test_a_turn_begun_anew_feeds_what_it_fed(profile: str) -> None:
    talk = Conversation(engine_of(profile, "device"))
    ask(talk, "The room of Miro is 417.")
    record = ask(talk, "What is the room of Miro?")
    with talk.aside():
        assert talk.begin_turn_anew() == "What is the room of Miro?"
        again = ask(talk, "What is the room of Miro?")
    assert (again.tokens_new, again.tokens_cached) == (record.tokens_new, record.tokens_cached)
    assert again.output_text == record.output_text


def written_before(talk: Conversation) -> list[int]:
    """How many tokens the template writes before every turn."""
    asked = [place for place, message in enumerate(talk.messages) if message.role == "user"]
    return [0, *(len(talk.template.ids(talk.messages[:place], generation_prompt=False)) for place in asked[1:])]


def test_where_turns_began_is_told_of_what_is_held_now() -> None:
    talk = Conversation(engine_of("full", "device"))
    records = [ask(talk, text) for text in ("The room of Miro is 417.", "Which room?", "Why?")]
    assert talk.began() == [*written_before(talk)[:2], records[2].tokens_cached]
    talk.set_system("Be brief.")
    record = ask(talk, "And now?")  # all was read again
    assert talk.began() == [*written_before(talk)[:3], record.tokens_cached] != written_before(talk)
    resumed = Conversation(engine_of("full", "device"))
    resumed.load([Message(m.role, m.content) for m in talk.messages])
    resumed.prefill()
    assert resumed.began() == written_before(resumed)
    resumed.undo()
    assert resumed.began() == written_before(resumed) and len(resumed.began()) == 3


def test_frozen_turns_begin_where_they_were_frozen() -> None:
    talk = Conversation(engine_of("snapkv", "evict"))
    for text in ("The room of Miro is 417.", "Which room?", "Why?"):
        ask(talk, text)
    eviction = talk.engine._state._eviction
    assert eviction is not None
    assert all(eviction.row(0, cut) is not None for cut in talk.began())


@pytest.mark.parametrize(
    "profile", ["loopserve", "snapkv", "adakv", "h2o", "streaming-llm", "quest", "expected-attention"]
)
def test_what_was_read_of_each_turn_adds_up_to_the_record(profile: str) -> None:
    engine = engine_of(profile, "device")
    began = []
    for seed in range(3):
        began.append(len(engine.tokens))
        _, record = run(engine, some_ids(50, seed=seed), max_new_tokens=18)
    read = engine.read_between([*began, len(engine.tokens)])
    assert read is not None and all(layer is not None for layer in read)
    assert record.keys_read == round(statistics.fmean(sum(layer or ()) for layer in read))
    for number, layer in enumerate(read):
        working = engine._state.decode._layers[number].buffers.working
        assert working.lengths is not None and working.keys is not None
        stored = engine._store.layers[number].rows()[0][0]
        for place, (first, last) in enumerate(zip(began, [*began[1:], len(engine.tokens)], strict=True)):
            heads = [
                sum(
                    bool((stored[head, first:last] == row).all(1).any())
                    for row in working.keys[head, : working.lengths[head]]
                )
                for head in range(2)
            ]
            assert layer is not None and layer[place] == statistics.fmean(heads)


def test_what_was_read_is_unknown_once_the_store_has_changed() -> None:
    engine = engine_of("snapkv", "device")
    assert engine.read_between([0, 0]) is None
    run(engine, some_ids(60), max_new_tokens=6)
    held = len(engine.tokens)
    with engine.aside():
        run(engine, some_ids(60), max_new_tokens=6)
    assert engine.read_between([0, held]) is not None  # a detour has working sets of its own
    engine.rewind(held - 1)
    assert engine.read_between([0, held - 1]) is None


def test_layers_that_read_everything_tell_no_share() -> None:
    engine = engine_of("full", "device")
    run(engine, some_ids(60), max_new_tokens=6)
    assert engine.read_between([0, len(engine.tokens)]) == [None, None]


def test_rows_that_a_tier_has_left_of_a_frozen_turn_are_told_by_its_beginning() -> None:
    engine = engine_of("snapkv", "evict", budget=40)
    began = []
    for seed in range(3):
        began.append(len(engine.tokens))
        run(engine, some_ids(100, seed=seed), max_new_tokens=10)
    read = engine.read_between([*began, len(engine.tokens)])
    assert read is not None
    for layer in read:
        assert layer is not None and sum(layer) == 40 + 9  # the last answer's tokens came on top
        assert max(layer[:2]) <= 40
    assert engine.read_between([began[1] - 1, len(engine.tokens)]) == [None, None]


def choosing(keeps: bool) -> Engine:
    engine = Engine(tiny.loaded("llama"), load_profile("loopserve-prefill").with_overrides(CHOOSING))
    engine.keeps_lines = keeps
    return engine


def test_lines_are_kept_only_where_they_are_asked_for_and_go_with_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Lines] = []
    engine, other = choosing(True), choosing(False)
    lines = engine.policy.lines

    def noted(query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines | None:
        found = lines(query, key, scaling, rows_per_block)
        assert found is not None
        made.append(found)
        return found

    monkeypatch.setattr(engine.policy, "lines", noted)
    run(engine, some_ids(300), max_new_tokens=3)
    run(other, some_ids(300), max_new_tokens=3)
    assert other.lines is None
    found = engine.lines
    assert found is not None and len(made) == found.layers == 2
    assert (found.new, found.keys, found.heads) == (300, 300, 4)
    for layer, chosen in enumerate(made):
        for head, choice in enumerate(found.choices(layer)):
            vertical, slash = found.lines_of(layer, head)
            if choice.dense:
                assert vertical == slash == []
                continue
            assert vertical == chosen.vertical[head, : choice.verticals].tolist()
            assert slash == chosen.slash[head, : choice.slashes].tolist() and slash[0] == 0
            assert choice.coverage == pytest.approx(float(chosen.coverage[head])) and choice.coverage >= 0.95
            assert 0 < choice.density <= 1
    with engine.aside():
        run(engine, some_ids(300, seed=1), max_new_tokens=3)
    assert engine.lines is found
    run(engine, some_ids(300, seed=1), max_new_tokens=3)
    assert engine.lines is not None and engine.lines.keys == 300 + 2 + 300
    engine.rewind(400)
    assert engine.lines is None


def test_a_history_that_is_fed_leaves_its_lines_too_and_a_reset_forgets_them() -> None:
    engine = choosing(True)
    engine.feed(some_ids(300))
    assert engine.lines is not None and engine.lines.keys == 300
    engine.reset()
    assert engine.lines is None


def test_what_is_kept_is_as_small_as_the_lines_are_few() -> None:
    engine = choosing(True)
    run(engine, some_ids(1000), max_new_tokens=2)
    found = engine.lines
    assert found is not None
    counts = [head for layer in range(2) for head in found.choices(layer)]
    widest = max(max(head.verticals, head.slashes) for head in counts)
    assert found.nbytes <= 2 * 4 * (2 * 4 * max(widest, 1) + 40) * 2
    assert found.nbytes < 4 * 1000 * 1000 / 8  # nowhere near one head's weights


def test_heads_of_groups_that_were_not_asked_are_dense_and_shared_lines_are_every_heads() -> None:
    from loopserve_kernels.index import make_index

    vertical = torch.tensor([[1, 5, 9], [2, 9, 9]], dtype=torch.int32)
    slash = torch.tensor([[0, 3], [0, 9]], dtype=torch.int32)
    flags = torch.tensor([False, False])
    counts = torch.tensor([2, 1], dtype=torch.int32)
    lines = Lines(vertical, counts, slash, counts, torch.tensor([0.96, float("nan")]), flags, flags)
    index = make_index(lines, 8, 9, 2, 4)
    found = ChosenLines(layers=3)
    found.asks([0, 2], groups=3)  # of three groups with two heads each the second is not asked; a plan per group
    found.chose(1, torch.zeros(4, 8, 16), torch.zeros(2, 9, 16), lines, index)
    found.settle()
    assert [head.asked for head in found.choices(1)] == [True, True, False, False, True, True]
    assert [head.dense for head in found.choices(1)] == [False, False, True, True, False, False]
    assert found.lines_of(1, 1) == ([1, 5], [0, 3]) and found.lines_of(1, 5) == ([2], [0])
    assert found.lines_of(1, 2) == ([], [])
    assert [head.coverage for head in found.choices(1)][::4] == [pytest.approx(0.96), None]
    assert all(head.dense and not head.asked for head in found.choices(0))
