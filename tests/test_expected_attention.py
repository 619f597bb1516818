"""Expected attention: the spread of queries before RoPE, the scores by hand, and models it does not know."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from attention_oracle import relative_rms
from launches import counted
from test_engine import run, some_ids
from test_keep import chosen, policy_of
from test_tiers import engine_of
from torch import Tensor

from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.layer_decoding import spread
from loopserve_cli.engine.rope import find_rope
from loopserve_cli.errors import UsageError
from loopserve_cli.policies.keep import ExpectedQueries, ScoringWindow
from loopserve_cli.profile import load_profile
from loopserve_kernels.expected_mass import expected_mass
from loopserve_kernels.query_statistics import query_statistics
from loopserve_kernels.rotate import turned, turned_back

TURNING = ("llama", "qwen2", "qwen3", "mistral", "phi3", "gemma2", "gemma3_text")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def angles(places: Tensor, size: int = 8, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cos and sin [n, size] in Llama's order, both scaled as YaRN's are."""
    turns = places[:, None] * 0.3 ** torch.arange(size // 2)
    both = torch.cat((turns, turns), 1)
    return both.cos() * scale, both.sin() * scale


def test_statistics_are_those_of_all_chunks_at_once() -> None:
    rows = random(3, 57, 8) * 0.01 + 5  # what varies is small beside the mean
    parts = [query_statistics(part) for part in rows.split([1, 20, 36], dim=1)]
    found = parts[0].merged(parts[1]).merged(parts[2])
    exact = rows.double()
    centred = exact - exact.mean(1, keepdim=True)
    assert found.count == 57 and relative_rms(found.mean, exact.mean(1)) < 1e-6
    assert relative_rms(found.covariance, centred.transpose(1, 2) @ centred / 57) < 1e-4


@pytest.mark.parametrize("scale", [1.0, 1.3])
@pytest.mark.parametrize("size", [8, 6])  # of 8 numbers, the last may stay as they are
def test_what_was_turned_is_turned_back(size: int, scale: float) -> None:
    x, (cos, sin) = random(2, 5, 8), angles(torch.arange(5), size, scale)
    there = turned(x, cos, sin)
    assert not torch.allclose(there, x) and torch.equal(there[..., size:], x[..., size:])
    assert torch.allclose(turned_back(there, cos, sin), x, atol=1e-6)


def by_hand(query: Tensor, key: Tensor, value: Tensor, sinks: int, future: int, epsilon: float) -> Tensor:
    """Scores [G, N] in float64, head by head and key by key; query [H, n, D] is not turned yet. Sinks are infinite."""
    groups, keys, size = key.shape
    cos, sin = (part.double().mean(0) for part in angles(torch.arange(keys, keys + future)))
    half = torch.zeros(size, size, dtype=torch.float64)
    half[size // 2 :, : size // 2], half[: size // 2, size // 2 :] = torch.eye(size // 2), -torch.eye(size // 2)
    turn = torch.diag(cos) + sin[:, None] * half
    scores = torch.full((groups, keys), float("inf"), dtype=torch.float64)
    for group, rows in enumerate(query[:, sinks:].double().unflatten(0, (groups, -1))):
        weights = []
        for head in rows:
            mean, spread = turn @ head.mean(0), turn @ head.T.cov(correction=0) @ turn.T
            logits = [float(mean @ k + k @ spread @ k / (2 * math.sqrt(size))) / math.sqrt(size) for k in
                      key[group, sinks:].double()]  # fmt: skip
            weights.append(torch.tensor(logits, dtype=torch.float64).softmax(0))
        mass = torch.stack(weights).mean(0)
        scores[group, sinks:] = (mass + epsilon) * value[group, sinks:].double().norm(dim=1)
    return scores


@pytest.mark.parametrize(("sinks", "epsilon", "future"), [(4, 0.0, 512), (0, 0.02, 1), (7, 0.0, 30)])
def test_the_scores_are_those_of_the_formula(sinks: int, epsilon: float, future: int) -> None:
    query, key, value = random(6, 70, 8) + 0.5, random(2, 70, 8, seed=1), random(2, 70, 8, seed=2)
    expected = ExpectedQueries(query_statistics(query[:, sinks:]), angles, 70)
    window = ScoringWindow(query[:, :0], torch.arange(0), key, 8**-0.5, expected=expected, value=value)
    policy = policy_of("expected_attention", budget=20, future=future, sinks=sinks, epsilon=epsilon)
    exact = by_hand(query, key, value, sinks, future, epsilon)
    assert relative_rms(policy.scores(window)[:, sinks:], exact[:, sinks:]) < 1e-5
    for group in range(2):
        assert chosen(policy.select(window), group) == sorted(exact[group].topk(20).indices.tolist())


def test_long_histories_are_scored_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, key = random(4, 8), random(2, 50, 8, seed=1)
    squares = random(4, 8, 8, seed=2)
    whole = expected_mass(mean, squares @ squares.transpose(1, 2), key, 0.3)
    monkeypatch.setattr("loopserve_kernels.expected_mass.BLOCK", 7)
    assert torch.allclose(expected_mass(mean, squares @ squares.transpose(1, 2), key, 0.3), whole, atol=1e-7)
    assert torch.allclose(whole.sum(1), torch.ones(2))


def test_a_choice_is_few_launches_and_no_wait() -> None:
    """Of one layer of an 8B model at 32k, on tensors without memory; a prompt's chunk is fewer still."""
    meta = {"dtype": torch.bfloat16, "device": "meta"}
    query, key = torch.empty(32, 2048, 128, **meta), torch.empty(8, 32768, 128, **meta)
    tables = torch.empty(2, 2048, 128, device="meta")
    with counted() as prompt:
        statistics = spread(spread(None, query, (tables[0], tables[1])), query, (tables[0], tables[1]))
    expected = ExpectedQueries(statistics, lambda places: (tables[0, : len(places)], tables[1, : len(places)]), 32768)
    window = ScoringWindow(query[:, :0], torch.arange(0), key, 0.1, expected=expected, value=key)
    with counted() as choice:
        policy_of("expected_attention").choose([window])
    assert choice.waits.total() == prompt.waits.total() == 0
    assert 10 < choice.launches <= 80 and 10 < prompt.launches <= 40


@pytest.mark.parametrize("kind", TURNING)
def test_of_every_known_architecture_queries_are_those_before_rope(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model's own projections and norms give, of the rows after the sinks, in two turns."""
    engine = engine_of("expected-attention", "device", kind, budget=8)
    seen: dict[int, list[Tensor]] = {0: [], 1: []}
    for number, layer in enumerate(engine.model.get_decoder().layers):
        attention = layer.self_attn
        rows = attention.config.num_attention_heads * attention.head_dim
        queries = getattr(attention, "q_norm", None) or getattr(attention, "q_proj", None) or attention.qkv_proj

        def note(_: object, __: object, out: Tensor, number: int = number, rows: int = rows) -> None:
            own = out.transpose(1, 2) if out.ndim == 4 and out.shape[1] == 4 else out
            seen[number].append(own.flatten(2)[0, :, :rows].unflatten(1, (4, -1)).transpose(0, 1).clone())

        queries.register_forward_hook(note)
    for turn, sinks in enumerate((4, 0)):
        for rows in seen.values():
            rows.clear()
        engine.rewind(0 if turn == 0 else len(engine.tokens))
        run(engine, some_ids(20 if kind in ("mistral", "gemma2") else 60, seed=turn), max_new_tokens=1)
        states = engine._state.decode._layers
        if turn == 0:
            assert bool(states) == (kind != "gemma2")  # whose scores are soft-capped
        for number, state in states.items():
            exact = query_statistics(seen[number][0][:, sinks:].double())
            assert state.statistics is not None and state.statistics.count == exact.count
            assert relative_rms(state.statistics.mean, exact.mean) < 1e-4
            assert relative_rms(state.statistics.covariance, exact.covariance) < 1e-4


def test_chunks_of_a_prefill_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (engine_of("expected-attention", "device") for _ in range(2))
    ids = some_ids(90)
    expected = run(whole, ids, max_new_tokens=20)[0]
    monkeypatch.setattr("loopserve_cli.engine.prefiller.plain_chunk", lambda _: 3)  # the first holds sinks alone
    assert run(parts, ids, max_new_tokens=20)[0] == expected
    one, other = (engine._state.decode._layers[1].statistics for engine in (whole, parts))
    assert one is not None and other is not None and one.count == other.count == 86
    assert relative_rms(other.covariance, one.covariance) < 1e-4


def test_a_model_whose_positions_are_not_known_is_refused_in_a_line() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 50, "bos_token_id": None, "eos_token_id": None}
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **small))
    assert find_rope(gpt2) is None
    scaled = tiny.configuration("llama")
    scaled.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert find_rope(AutoModelForCausalLM.from_config(scaled)) is None
    unknown = tiny.loaded("llama")
    unknown.model.config.model_type = "other"
    engine = Engine(unknown, load_profile("full"))
    run(engine, some_ids(9), max_new_tokens=2)
    held = list(engine.tokens)
    with pytest.raises(
        UsageError, match=r"^profile expected-attention turns queries by .* of arcee, .*; choose another"
    ):
        engine.set_profile(load_profile("expected-attention"))
    assert engine.tokens == held and engine.profile.name == "full"
    with pytest.raises(UsageError):
        Engine(unknown, load_profile("expected-attention"))
