"""Keep policies and the decoding under them: which keys are read, when they are chosen again, what is reported."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import tiny
import torch
from attention_oracle import exact_weights, relative_rms
from test_engine import run, some_ids
from torch import Tensor

from loopserve_cli.chat.figures import compression
from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.layer_decoding import accumulate
from loopserve_cli.engine.store import Store
from loopserve_cli.policies.keep import POLICIES, Keys, ScoringWindow, keep_policy
from loopserve_cli.policies.keep.progressive import with_followers
from loopserve_cli.profile import KEEP_DEFAULTS, PolicyOptions, load_profile
from loopserve_cli.stats import TurnRecord
from loopserve_kernels.dense import dense_attention

HEADS, GROUPS, SIZE, SCALING = 4, 2, 16, 0.3
PROFILES = ("streaming-llm", "snapkv", "adakv", "h2o", "loopserve", "quest", "expected-attention")
SMALL_PAGES = ("keep.page=4", "keep.dense_layers=0")  # where dialogues and models are small


def policy_of(name: str, **settings: Any) -> Any:
    return keep_policy(PolicyOptions(name, {**KEEP_DEFAULTS[name], **settings}))


def random_parts(rows: int, keys: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [H, rows, D] and keys and values [G, keys, D], with a few keys that everybody likes."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(HEADS, rows, SIZE, generator=generator) + 1
    key, value = torch.randn(2, GROUPS, keys, SIZE, generator=generator)
    key[:, torch.randperm(keys, generator=generator)[:9]] += 0.7
    return query, key, value


def seen(rows: int, keys: int, seed: int = 0) -> ScoringWindow:
    query, key, _ = random_parts(rows, keys, seed)
    return ScoringWindow(query, torch.arange(keys - rows, keys), key, SCALING)


def group_mass(weights: Tensor, pool: str = "mean") -> Tensor:
    """Weights [H, r, N] as one mass per key-value head, [G, N]."""
    by_group = weights.mean(1).unflatten(0, (GROUPS, -1))
    return by_group.mean(1) if pool == "mean" else by_group.amax(1)


def chosen(keys: Keys | None, group: int) -> list[int]:
    assert keys is not None
    return keys.index[group, : int(keys.count[group])].tolist()


def test_every_policy_is_one_that_profiles_know() -> None:
    assert set(POLICIES) == set(KEEP_DEFAULTS)


@pytest.mark.parametrize("name", PROFILES)
def test_a_shipped_profile_says_every_number_that_its_policy_reads(name: str) -> None:
    profile = load_profile(name)
    assert profile.keep.settings == KEEP_DEFAULTS[profile.keep.policy]


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"everything"}))
def test_a_budget_that_holds_all_leaves_nothing_out(name: str) -> None:
    for budget in (50, 51):
        assert policy_of(name, budget=budget).select(seen(8, 50)) is None
    assert policy_of("everything").select(seen(8, 50)) is None


def test_streaming_is_first_and_recent() -> None:
    keys = policy_of("streaming", budget=7, sinks=2).select(seen(0, 50))
    assert chosen(keys, 0) == chosen(keys, 1) == [0, 1, 45, 46, 47, 48, 49]


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_progressive_takes_the_heaviest_of_the_mean_attention(pool: str) -> None:
    given = seen(8, 90)
    keys = policy_of("progressive", budget=20, follow=0, sinks=2, recent=3, group=pool).select(given)
    mass = group_mass(exact_weights(given.query, given.positions, given.key, SCALING), pool)
    mass[:, :2] = mass[:, -3:] = float("inf")
    for group in range(GROUPS):
        assert chosen(keys, group) == sorted(mass[group].topk(20).indices.tolist())


@pytest.mark.parametrize("follow", [1, 3, 100])
def test_progressive_takes_what_stands_after_what_was_looked_at(follow: int) -> None:
    given = seen(8, 90)
    keys = policy_of("progressive", budget=20, follow=follow, sinks=2, recent=3).select(given)
    mass = group_mass(exact_weights(given.query, given.positions, given.key, SCALING))
    ahead = torch.stack([mass[:, max(0, key - follow) : key + 1].amax(1) for key in range(90)], dim=1)
    ahead[:, :2] = ahead[:, -3:] = float("inf")
    for group in range(GROUPS):
        # Followers tie with their leader: the nearer ones come first.
        assert chosen(keys, group) == sorted(ahead[group].argsort(descending=True, stable=True)[:20].tolist())


def test_a_key_looked_at_brings_the_next_ones_and_none_before() -> None:
    mass = torch.zeros(1, 12)
    mass[0, 2], mass[0, 4], mass[0, 11] = 0.5, 0.25, 1.0
    expected = [0, 0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0, 0, 0, 1.0]
    assert with_followers(mass, 3)[0].tolist() == expected
    assert with_followers(mass, 0) is mass


def snap_scores(given: ScoringWindow, width: int) -> Tensor:
    """SnapKV's pooled scores by hand, the window's own keys infinite."""
    rows, keys = given.query.shape[1], given.key.shape[1]
    mass = group_mass(exact_weights(given.query, given.positions, given.key, SCALING))[:, : keys - rows]
    scores = torch.full((GROUPS, keys), float("inf"), dtype=torch.float64)
    for key in range(keys - rows):
        low, high = max(0, key - width // 2), min(keys - rows, key + width // 2 + 1)
        scores[:, key] = mass[:, low:high].sum(1) / width
    return scores


@pytest.mark.parametrize("width", [1, 5, 7])
def test_snapkv_pools_what_the_window_looks_at(width: int) -> None:
    given = seen(8, 90)
    keys = policy_of("snapkv", budget=24, window=8, pool_width=width).select(given)
    scores = snap_scores(given, width)
    for group in range(GROUPS):
        assert chosen(keys, group) == sorted(scores[group].topk(24).indices.tolist())


@pytest.mark.parametrize("floor", [0.0, 0.2, 1.0])
def test_adakv_lets_heads_compete_above_the_floor(floor: float) -> None:
    given = seen(8, 90)
    keys = policy_of("adakv", budget=24, window=8, pool_width=5, floor=floor).select(given)
    assert keys is not None and int(keys.count.sum()) == GROUPS * 24
    scores = snap_scores(given, 5)
    for group in range(GROUPS):
        scores[group, scores[group].topk(int(24 * floor)).indices] = float("inf")
    best = scores.flatten().topk(GROUPS * 24).indices
    for group in range(GROUPS):
        wanted = sorted(int(i) % 90 for i in best if int(i) // 90 == group)
        assert chosen(keys, group) == wanted
        assert len(wanted) >= int(24 * floor)


def test_h2o_keeps_heavy_hitters_and_recent_ones() -> None:
    query, key, _ = random_parts(70, 90)
    rows = torch.arange(20, 90)
    halves = accumulate(accumulate(None, query[:, :30], key[:, :50], SCALING), query[:, 30:], key, SCALING)
    exact = group_mass(exact_weights(query, rows, key, SCALING)) * 70
    assert relative_rms(halves, exact) < 1e-5
    keys = policy_of("h2o", budget=20).select(ScoringWindow(query[:, :0], rows[:0], key, SCALING, halves))
    exact[:, -10:] = float("inf")
    for group in range(GROUPS):
        assert chosen(keys, group) == sorted(exact[group].topk(20).indices.tolist())


def decoded(policy: Any, prompt: int, steps: int, seed: int) -> tuple[list[Tensor], DecodeTurn, tuple[Tensor, ...]]:
    """A prompt of `prompt` rows in two chunks, then `steps` tokens, one layer."""
    query, key, value = random_parts(prompt + steps, prompt + steps, seed)
    store = Store(1)
    turn = DecodeTurn(policy, store)
    for first, last in ((0, prompt // 3), (prompt // 3, prompt)):
        keys, _ = store.update(key[None, :, first:last], value[None, :, first:last], 0)
        turn.observe(0, query[None, :, first:last], keys, SCALING)
    out = []
    for place in range(prompt, prompt + steps):
        own = slice(place, place + 1)
        turn.begin_step()
        new = store.update(key[None, :, own], value[None, :, own], 0)
        out.append(turn.attend(0, query[None, :, own], *new))
        turn.end_step()
    return [part[0, :, 0] for part in out], turn, (query, key, value)


@pytest.mark.parametrize("first", ["prompt", "full"])
@pytest.mark.parametrize("interval", [1, 4, 7])
def test_progressive_decoding_is_what_brute_force_gives(first: str, interval: int) -> None:
    budget, prompt, steps = 24, 60, 30
    policy = policy_of("progressive", budget=budget, interval=interval, first=first, follow=0, sinks=1, recent=2)
    out, turn, (query, key, value) = decoded(policy, prompt, steps, seed=interval)
    sets: list[list[int]] = []
    choices = 0
    for step in range(steps):
        place = prompt + step
        if step % interval == 0:
            choices += 1
            rows = torch.arange(place - interval, place)
            mass = group_mass(exact_weights(query[:, rows], rows, key[:, :place], SCALING))
            mass[:, :1] = mass[:, -2:] = float("inf")
            sets = [sorted(mass[g].topk(budget).indices.tolist()) for g in range(GROUPS)]
            if first == "full" and step == 0:
                sets = [list(range(place)) for _ in range(GROUPS)]
            start = place
        for head in range(HEADS):
            group = head * GROUPS // HEADS
            held = [*sets[group], *range(start, place + 1)]
            scores = query[head, place].double() @ key[group, held].double().T * SCALING
            exact = scores.softmax(-1) @ value[group, held].double()
            assert relative_rms(out[step][head], exact) < 1e-5
    report = turn.report(prompt + steps)
    assert report.reselections == choices - 1
    assert report.keys_read == budget + (steps - 1) % interval + 1
    assert report.working_set_bytes > 0 and report.reselect_ms > 0


@pytest.mark.parametrize("name", ["streaming", "snapkv", "adakv", "h2o"])
def test_other_methods_choose_once_and_add_what_is_written(name: str) -> None:
    policy = policy_of(name, budget=24, **({"window": 8} if "window" in KEEP_DEFAULTS[name] else {}))
    out, turn, (query, key, value) = decoded(policy, 60, 300, seed=3)
    rows = torch.arange(60 - policy.window, 60)
    total = accumulate(None, query[:, :60], key[:, :60], SCALING)
    keys = policy.select(ScoringWindow(query[:, rows], rows, key[:, :60], SCALING, total))
    for step in (0, 1, 299):
        for head in range(HEADS):
            group = head * GROUPS // HEADS
            held = [*chosen(keys, group), *range(60, 61 + step)]
            scores = query[head, 60 + step].double() @ key[group, held].double().T * SCALING
            assert relative_rms(out[step][head], scores.softmax(-1) @ value[group, held].double()) < 1e-5
    assert turn.report(360).reselections == 0
    assert turn.report(360).keys_read == 24 + 300


def test_everything_reads_everything() -> None:
    out, turn, (query, key, value) = decoded(policy_of("everything"), 20, 3, seed=1)
    exact = dense_attention(query[None, :, -1:], key[None], value[None], SCALING)[0, :, 0]
    assert relative_rms(out[-1], exact) < 1e-6
    assert (turn.report(23).keys_read, turn.report(23).working_set_bytes, turn.watches) == (23, 0, False)


def with_budget(kind: str, profile: str, budget: int, *more: str) -> Engine:
    more = (*more, *SMALL_PAGES) if profile == "quest" else more
    return Engine(tiny.loaded(kind), load_profile(profile).with_overrides([f"keep.budget={budget}", *more]))


@pytest.mark.parametrize(("kind", "profile"), tiny.with_profiles(PROFILES))
def test_a_large_budget_gives_full_attentions_tokens_over_five_turns(kind: str, profile: str) -> None:
    full, ours = Engine(tiny.loaded(kind), load_profile("full")), with_budget(kind, profile, 4096)
    for turn in range(5):
        ids = some_ids(40, seed=turn)
        expected, _ = run(full, ids, max_new_tokens=20)
        held = len(ours.tokens)
        run(ours, some_ids(30, seed=turn + 50), max_new_tokens=5)
        ours.rewind(held)
        got, record = run(ours, ids, max_new_tokens=20)
        assert got == expected
        assert record.keys_read == record.keys_stored and record.working_set_bytes == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_the_record_says_what_was_read(profile: str) -> None:
    engine = with_budget("llama", profile, 40)
    _, record = run(engine, some_ids(200), max_new_tokens=40)
    # The last of 40 tokens is drawn, not fed: 39 were decoded.
    assert record.keys_stored == 239
    assert record.keys_read == {"loopserve": 40 + 39 - 32, "quest": 36 + 238 % 4 + 1}.get(profile, 40 + 39)
    assert record.reselections == {"loopserve": 2, "quest": 38}.get(profile, 0)
    assert record.reselect_ms is not None and 0 < record.reselect_ms < record.e2e_ms
    rows = 64 * -(-(40 + {"loopserve": 16, "quest": 1}.get(profile, 256)) // 64)
    assert record.working_set_bytes == 2 * 2 * 2 * rows * 16 * 4 or profile == "adakv"
    assert record.kv_store_host_bytes is not None and record.kv_store_host_bytes > record.working_set_bytes / 4


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(4))
def test_undo_retry_and_cancel_leave_no_trace(seed: int, profile: str) -> None:
    """One engine goes astray between turns, and is rewound; the other never does. Their answers are the same."""
    rng = Random(f"{seed} {profile}")
    changes = ["keep.interval=3", "keep.recent=4"] if profile == "loopserve" else []
    astray, straight = (with_budget("llama", profile, 24, *changes) for _ in range(2))
    for step in range(5):
        held = len(astray.tokens)
        for _ in range(rng.randrange(3)):
            calls = iter(range(rng.choice((0, 3, 99))))
            ids = some_ids(rng.randrange(1, 60), seed=rng.randrange(10**6))
            list(astray.turn(ids, sampling(rng.randrange(1, 12)), lambda calls=calls: next(calls, None) is None))
            astray.rewind(rng.randrange(held, len(astray.tokens) + 1))
        astray.rewind(held)
        ids, tokens, stop = some_ids(rng.randrange(1, 60), seed=step), rng.randrange(1, 12), rng.choice((4, 99))
        answers = []
        for engine in (astray, straight):
            calls = iter(range(stop))
            events = list(engine.turn(ids, sampling(tokens), lambda calls=calls: next(calls, None) is None))
            answers.append([event.id for event in events if isinstance(event, Token)])
        assert answers[0] == answers[1] and answers[0]
        assert astray.tokens == straight.tokens


def test_a_turn_line_says_how_many_keys_were_read() -> None:
    record = TurnRecord(keys_read=1037, keys_stored=16400, reselections=2)
    assert compression(record) == ["read 1,037 of 16,400 keys, chosen again 2x"]
    assert compression(replace(record, reselections=0)) == ["read 1,037 of 16,400 keys"]
    assert compression(replace(record, keys_read=16400)) == compression(TurnRecord()) == []


def sampling(tokens: int) -> SamplingOptions:
    return SamplingOptions(max_new_tokens=tokens)
