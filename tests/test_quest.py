"""Quest: pages chosen at every step, held against a plain one in float64; what they are chosen by follows the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tiny
import torch
from attention_oracle import relative_rms
from recorded_step import RecordedCapture
from test_engine import run, some_ids
from test_keep import GROUPS, HEADS, SCALING, decoded, policy_of, random_parts
from test_stepper import captured, gpu_like  # noqa: F401
from torch import Tensor

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine import loader
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.host_tier import TAIL
from loopserve_cli.errors import UsageError
from loopserve_cli.policies.keep import ScoringWindow
from loopserve_cli.policies.keep.quest import Quest
from loopserve_cli.profile import load_profile
from loopserve_kernels.page_bounds import PageBounds
from loopserve_kernels.page_index import page_index
from loopserve_kernels.page_scores import page_scores


def plain_quest(query: Tensor, key: Tensor, budget: int, page: int, pool: str) -> list[list[int]]:
    """What one query [H, D] reads of keys [G, N, D] beside its own: page by page and channel by channel, in float64."""
    groups, keys, _ = key.shape
    most, whole = max(1, budget // page), keys // page
    found = []
    for group, rows in enumerate(query.double().unflatten(0, (groups, -1))):
        bounds = []
        for number in range(whole):
            own = key[group, number * page : (number + 1) * page].double()
            low, high = own.min(0).values, own.max(0).values
            by_head = [sum(max(q * a, q * b) for q, a, b in zip(*map(Tensor.tolist, (row, low, high)), strict=True))
                       for row in rows]  # fmt: skip
            bounds.append(max(by_head) if pool == "max" else sum(by_head) / len(by_head))
        best = sorted(sorted(range(whole), key=lambda number: -bounds[number])[: most - 1])
        chosen = [key for number in best for key in range(number * page, (number + 1) * page)]
        found.append(chosen + list(range(whole * page, keys)))
    return found


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize(
    ("keys", "budget", "page"), [(90, 24, 4), (97, 33, 5), (64, 48, 16), (331, 64, 16), (50, 3, 1)]
)
def test_the_pages_are_those_of_a_plain_quest(keys: int, budget: int, page: int, pool: str) -> None:
    query, key, _ = random_parts(1, keys, seed=keys)
    policy = policy_of("quest", budget=budget, page=page, group=pool)
    chosen = policy.select(ScoringWindow(query, torch.tensor([keys]), key, SCALING))
    assert chosen is not None and chosen.even
    expected = plain_quest(query[:, 0], key, budget, page, pool)
    assert chosen.index.tolist() == expected and chosen.count.tolist() == [len(row) for row in expected]
    assert len(expected[0]) + 1 <= max(budget, page) and chosen.total == GROUPS * len(expected[0])


def test_the_demo_model_s_queries_choose_the_pages_of_a_plain_quest(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step of an answer, in every layer but the first two."""
    talk = Conversation(Engine(loader.load(ModelOptions(device="cpu")), load_profile("quest+keep.budget=64")))
    chosen: list[tuple[Tensor, Tensor, Tensor]] = []
    real = Quest.choose_pages

    def noted(policy: Quest, query: Tensor, bounds: PageBounds, position: Tensor) -> Tensor:
        pages = real(policy, query, bounds, position)
        chosen.append((query.clone(), position.clone(), pages))
        return pages

    monkeypatch.setattr(Quest, "choose_pages", noted)
    for text in ["The colour of Anna is red. The home of Bert is Rome."] * 4 + ["What is the colour of Anna?"]:
        list(talk.ask(text, SamplingOptions(max_new_tokens=12)))
    assert len(chosen) > 40 and len(chosen) % 2 == 0
    differ = set()
    for number, (query, position, pages) in enumerate(chosen):
        layer = talk.engine._store.layers[2 + number % 2]
        key = layer.rows()[0][0, :, : int(position)]
        expected = plain_quest(query, key, 64, 16, "max")
        assert page_index(pages, 16, position)[0][:, : len(expected[0])].tolist() == expected
        differ.add(str(pages.tolist()))
    assert len(differ) > 10, "steps and layers choose otherwise"


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_every_step_reads_what_a_plain_quest_would(pool: str) -> None:
    """Also as pages fill up, from where the dialogue outgrows the budget on."""
    budget, page, prompt, steps = 32, 5, 20, 60
    policy = policy_of("quest", budget=budget, page=page, group=pool, dense_layers=0)
    out, turn, (query, key, value) = decoded(policy, prompt, steps, seed=4)
    chosen = 0
    for step in range(steps):
        place = prompt + step
        sets = [list(range(place))] * GROUPS
        if place > budget:
            sets = plain_quest(query[:, place], key[:, :place], budget, page, pool)
            chosen += 1
        for head in range(HEADS):
            group = head * GROUPS // HEADS
            held = [*sets[group], place]
            scores = query[head, place].double() @ key[group, held].double().T * SCALING
            assert relative_rms(out[step][head], scores.softmax(-1) @ value[group, held].double()) < 1e-5
    report = turn.report(prompt + steps)
    assert report.reselections == chosen - 1 == steps - (budget + 1 - prompt) - 1
    assert report.keys_read == (budget // page - 1) * page + (prompt + steps - 1) % page + 1
    assert report.reselect_ms is not None and report.reselect_ms > 0
    held = {group: plain_quest(query[:, -1], key[:, :-1], budget, page, pool)[group] for group in range(GROUPS)}
    cuts = [0, 13, 40, 79, 80]
    read = [sum(a <= k < b for own in held.values() for k in [*own, 79]) / GROUPS
            for a, b in zip(cuts, cuts[1:], strict=False)]  # fmt: skip
    assert turn.read_between(0, cuts) == read
    assert turn.shares() == {0: pytest.approx((report.keys_read / 80,) * GROUPS)}


def quest(*changes: str, tier: str = "device", kind: str = "llama", **settings: Any) -> Engine:
    numbers = {"budget": 24, "page": 4, "dense_layers": 0, **settings}
    overrides = [f"keep.{name}={value}" for name, value in numbers.items()]
    endless = replace(tiny.loaded(kind), stop_ids=frozenset())
    return Engine(endless, load_profile("quest").with_overrides([*overrides, *changes, f"retain.tier={tier}"]))


def test_the_first_layers_read_everything() -> None:
    engine = quest(dense_layers=1)
    _, record = run(engine, some_ids(200), max_new_tokens=6)
    chosen = 24 - 4 + 204 % 4 + 1
    assert record.keys_read == round((205 + chosen) / 2) and record.reselections == 4
    shares = engine._state.decode.shares()
    assert shares == {0: (1.0, 1.0), 1: pytest.approx((chosen / 205, chosen / 205))}
    dense = quest(dense_layers=2)
    got, record = run(dense, some_ids(200), max_new_tokens=6)
    assert got == run(Engine(dense._runtime.loaded, load_profile("full")), some_ids(200), max_new_tokens=6)[0]
    assert (record.keys_read, record.reselections, record.working_set_bytes) == (205, 0, 0)


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("seed", range(2))
@torch.inference_mode()
def test_bounds_follow_a_store_that_is_taken_back(seed: int, tier: str) -> None:
    """Undone tokens leave other keys in a page's place: an engine that went astray answers as one that never did."""
    rng = Random(seed)
    straight, astray = quest(), quest(tier=tier)
    for step in range(4):
        held = len(astray.tokens)
        run(astray, some_ids(rng.randrange(1, 60), seed=90 + step), max_new_tokens=rng.randrange(2, 20))
        astray.rewind(rng.randrange(held, len(astray.tokens) + 1))
        astray.rewind(held)
        ids, tokens = some_ids(40, seed=step), rng.randrange(2, TAIL + 20)
        expected, record = run(straight, ids, max_new_tokens=tokens)
        got, ours = run(astray, ids, max_new_tokens=tokens)
        assert got == expected
        assert (ours.keys_read, ours.reselections) == (record.keys_read, record.reselections)
    for layer in astray._store.layers:
        assert layer.bounds is not None
        keys = layer.rows()[0][0, :, : layer.bounds.keys].unflatten(1, (-1, 4))
        assert layer.length - layer.bounds.keys < 8
        assert torch.equal(layer.bounds.low[:, : layer.bounds.pages], keys.amin(2))
        assert torch.equal(layer.bounds.high[:, : layer.bounds.pages], keys.amax(2))


def test_bounds_are_made_anew_for_other_pages_and_counted_as_memory() -> None:
    engine, fresh = quest(page=4), quest(page=8)
    ids = some_ids(150)
    for one in (engine, fresh):
        run(one, ids, max_new_tokens=1)
    without = sum(part.nbytes for layer in engine._store.layers for part in (layer.keys, layer.values))
    assert engine.kv_bytes == without + without // 4, "lowest and highest keys, of pages of four"
    engine.set_profile(fresh.profile)
    more = some_ids(60, seed=1)
    assert run(engine, more, max_new_tokens=20)[0] == run(fresh, more, max_new_tokens=20)[0]


def test_the_host_tier_streams_what_is_read_and_no_key_for_choosing() -> None:
    row, layers, groups = 16 * 4, 2, 2
    engine = quest(tier="host")
    engine.feed(some_ids(200))
    _, record = run(engine, some_ids(1), max_new_tokens=5)
    prefill = layers * groups * 2 * 200 * row
    chosen = sum(20 + keys % 4 for keys in range(201, 205))
    assert record.streamed_bytes == prefill + layers * groups * 2 * chosen * row


@pytest.mark.parametrize("tier", ["device", "host"])
def test_a_saved_dialogue_and_one_in_another_tier_go_on_as_before(tier: str, tmp_path: Path) -> None:
    straight, moved, taken_up = quest(), quest(), quest(tier=tier)
    for engine in (straight, moved):
        run(engine, some_ids(90), max_new_tokens=20)
    moved.save(tmp_path / "x.kv.safetensors")
    moved.set_profile(quest(tier=tier).profile)
    taken_up.restore(taken_up.saved(tmp_path / "x.kv.safetensors"))
    for turn in range(2):
        ids = some_ids(30, seed=turn + 1)
        expected, record = run(straight, ids, max_new_tokens=20)
        for engine in (moved, taken_up):
            got, ours = run(engine, ids, max_new_tokens=20)
            assert got == expected and ours.reselections == record.reselections == 18


@pytest.mark.usefixtures("gpu_like")
def test_a_replayed_step_chooses_anew_and_its_choice_is_not_timed() -> None:
    eager, replayed = quest(), quest()
    captured(replayed, RecordedCapture)
    for turn in range(2):  # the first outgrows the budget while it answers
        ids = some_ids(15 + 30 * turn, seed=turn)
        expected, record = run(eager, ids, max_new_tokens=40)
        got, ours = run(replayed, ids, max_new_tokens=40)
        assert got == expected and ours.graph_refusal is None
        assert ours.reselections == record.reselections == (38 if turn else 39 - (25 - 15) - 1)
        assert ours.graph_replays is not None and ours.graph_replays >= 39 - 4
        assert ours.reselect_ms is None and record.reselect_ms is not None


def test_a_tier_that_evicts_is_refused() -> None:
    with pytest.raises(UsageError, match="retain.tier evict needs .*, not quest; choose one of streaming, snapkv"):
        quest(tier="evict")


def test_bounds_of_pages_grow_and_go_back() -> None:
    key = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    bounds = PageBounds(7)
    assert bounds.make_room(3, key) and not bounds.make_room(2, key)
    bounds.append(key[:, :20])
    assert (bounds.pages, bounds.keys) == (2, 14)
    assert bounds.make_room(9, key)
    bounds.append(key[:, 14:50])
    assert bounds.pages == 7 and len(bounds.tensors) == 2
    for page in range(7):
        own = key[:, 7 * page : 7 * page + 7]
        assert torch.equal(bounds.low[:, page], own.amin(1)) and torch.equal(bounds.high[:, page], own.amax(1))
    bounds.rewind(48)
    assert bounds.pages == 6
    bounds.rewind(60)
    assert bounds.pages == 6


def test_a_score_bounds_every_key_of_its_page_and_is_one_keys_where_a_page_has_one() -> None:
    query, key, _ = random_parts(1, 60)
    for page in (1, 6):
        bounds = PageBounds(page)
        bounds.make_room(64 // page, key)
        bounds.append(key)
        scores = page_scores(query[:, 0], bounds.low, bounds.high, torch.tensor([60]), page)
        products = (query[:, 0].unflatten(0, (GROUPS, -1)) @ key.transpose(1, 2)).amax(1).unflatten(1, (-1, page))
        assert bool((scores[:, : 60 // page] >= products.amax(2) - 1e-4).all())
        assert bool((scores[:, 60 // page :] == float("-inf")).all())
        if page == 1:
            assert torch.allclose(scores[:, :60], products[..., 0], atol=1e-4)


def test_keys_that_are_no_numbers_are_chosen_last_and_in_place() -> None:
    query, key, _ = random_parts(1, 40)
    key[0, 4:36] = float("nan")
    chosen = policy_of("quest", budget=12, page=4).select(ScoringWindow(query, torch.tensor([40]), key, SCALING))
    assert chosen.index[0, :4].tolist() == [0, 1, 2, 3]
    assert int(chosen.index.max()) < 40 and chosen.count.tolist() == [8, 8]


def test_the_keys_of_pages() -> None:
    pages = torch.tensor([[0, 2], [1, 3]], dtype=torch.int32)
    index, count = page_index(pages, 3, torch.tensor([13]))
    assert count.tolist() == [7, 7] and index.dtype == count.dtype == torch.int32
    assert index[:, :7].tolist() == [[0, 1, 2, 6, 7, 8, 12], [3, 4, 5, 9, 10, 11, 12]]
    assert page_index(pages, 3, torch.tensor([12]))[1].tolist() == [6, 6]
