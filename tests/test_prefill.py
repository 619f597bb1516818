"""Prefill policies: which lines each one takes, what a turn under it reports, and that the engine runs it."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from typing import Any

import pytest
import tiny
import torch
from attention_oracle import exact_weights, relative_rms, tensors
from rich.console import Console
from test_engine import run, some_ids

from loopserve_cli.chat.figures import sparsity, turn_line
from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.attention import loopserve_attention
from loopserve_cli.engine.chunks import choosing_chunk
from loopserve_cli.engine.engine import Engine
from loopserve_cli.errors import ModelError, UsageError
from loopserve_cli.policies.prefill import POLICIES, PrefillTurn, prefill_policy
from loopserve_cli.policy_settings import BLOCK_POLICIES
from loopserve_cli.profile import PREFILL_DEFAULTS, PolicyOptions, load_profile
from loopserve_cli.replay.tables import summary_table, turn_tables
from loopserve_cli.stats import TurnRecord, summarise
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.dense import dense_attention

SCALING = 0.3
OPEN = ("prefill.min_new=1", "prefill.min_keys=1", "prefill.most_density=1", "prefill.local=4", "prefill.sinks=2")


def policy_of(name: str, **settings: Any) -> Any:
    return prefill_policy(PolicyOptions(name, {**PREFILL_DEFAULTS[name], **settings}))


def chosen(lines: Lines, head: int) -> tuple[list[int], list[int]]:
    vertical = lines.vertical[head, : lines.vertical_count[head]].tolist()
    return vertical, lines.slash[head, : lines.slash_count[head]].tolist()


def sparse(kind: str, *overrides: str) -> Engine:
    """An engine whose gate is open and whose choice at this alpha leaves something out."""
    profile = load_profile("loopserve-prefill").with_overrides([*OPEN, *overrides])
    return Engine(tiny.loaded(kind), profile)


def test_every_policy_is_one_that_profiles_know() -> None:
    assert set(POLICIES) == set(PREFILL_DEFAULTS)
    for name in POLICIES:
        assert policy_of(name).dense_rows == PREFILL_DEFAULTS[name].get("dense_rows", 0)


@pytest.mark.parametrize(
    "name", ["loopserve-prefill", "a-shape", "tri-shape", "minference", "flexprefill", "xattention"]
)
def test_a_shipped_profile_says_every_number_that_its_policy_reads(name: str) -> None:
    profile = load_profile(name)
    assert profile.prefill.settings == PREFILL_DEFAULTS[profile.prefill.policy]


def test_a_shape_is_first_and_nearest_keys() -> None:
    query, key, _ = tensors(4, 2, 20, 50, 16)
    lines = policy_of("a_shape", sinks=3, local=5).lines(query, key, SCALING, 32)
    assert chosen(lines, 0) == ([0, 1, 2], [0, 1, 2, 3, 4])
    assert lines.dense.tolist() == [False]


def test_minference_takes_the_heaviest_lines_of_the_last_rows() -> None:
    query, key, _ = tensors(4, 2, 40, 60, 16)
    lines = policy_of("minference", verticals=6, slashes=9, window=8, sinks=2, local=3).lines(query, key, SCALING, 32)
    positions = torch.arange(52, 60)
    weights = exact_weights(query[:, 32:], positions, key, SCALING)
    for head in range(4):
        vertical = weights[head].sum(0)
        slash = torch.zeros(60, dtype=torch.float64)
        for i, position in enumerate(positions.tolist()):
            slash[: position + 1] += weights[head, i, : position + 1].flip(0)
        vertical[:2] = slash[:3] = float("inf")
        best = sorted(vertical.topk(6).indices.tolist()), sorted(slash.topk(9).indices.tolist())
        assert chosen(lines, head) == best


@pytest.mark.parametrize("objective", ["lines", "optimal", "latency"])
@pytest.mark.parametrize("share", ["head", "group"])
def test_online_reaches_alpha_on_its_sampled_rows(objective: str, share: str) -> None:
    query, key, _ = tensors(4, 2, 96, 128, 16)
    policy = policy_of("online", alpha=0.8, objective=objective, share=share, local=4, sinks=2)
    lines = policy.lines(query, key, SCALING, 32)
    assert lines.dense.shape == ((4,) if share == "head" else (2,))
    assert (lines.coverage >= 0.8).all() and (lines.coverage < 1).any()


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"dense"}))
def test_a_turn_counts_what_it_executes(name: str) -> None:
    small = {"sinks": 2, "local": 6, "verticals": 4, "slashes": 8, "window": 8, "dense_rows": 3}
    small |= {"block": 16, "stride": 4, "gamma": 0.5, "threshold": 0.5, "min_budget": 16}
    settings = {key: value for key, value in small.items() if key in PREFILL_DEFAULTS[name]}
    alpha = {"alpha": 0.5, "min_new": 1, "min_keys": 1, "most_density": 1.0} if name == "online" else {}
    turn = PrefillTurn(policy_of(name, **settings, **alpha))
    query, key, value = (part[None] for part in tensors(4, 2, 150, 200, 16))
    out = turn.attend(0, query, key, value, SCALING)
    report = turn.report()
    # Rows of one vector each give the executed share: with values of zeros and one row of ones, what a row gives
    # that key is its weight, so a cell that is not executed gives exactly 0.
    eye = torch.eye(200).expand(1, 2, 200, 200)
    cells = 0
    for start in range(0, 200, 16):
        part = torch.nn.functional.pad(eye[..., start : start + 16], (0, 16 - eye[..., start : start + 16].shape[-1]))
        again = PrefillTurn(turn.policy).attend(0, query, key, part.contiguous(), SCALING)
        cells += int((again > 0).sum())
    causal = 4 * (150 * 50 + 150 * 151 // 2)
    assert report.density == pytest.approx(cells / causal)
    assert 0 < report.density < 1 and report.dense_layers == 0
    assert out.shape == query.shape and not out.isnan().any()
    if name in BLOCK_POLICIES:
        assert (report.lines_vertical, report.lines_slash) == (None, None)
    else:
        assert report.lines_vertical is not None and report.lines_slash is not None and report.lines_slash >= 6
    assert (report.coverage is None) == (name not in ("online", "flexprefill"))


def test_dense_is_dense_attention_and_says_so() -> None:
    query, key, value = (part[None] for part in tensors(4, 2, 30, 50, 16))
    turn = PrefillTurn(policy_of("dense"))
    assert relative_rms(turn.attend(0, query, key, value, SCALING), dense_attention(query, key, value, SCALING)) == 0
    figures = asdict(turn.report())
    assert figures.pop("attention_ms") > 0
    assert figures == {
        "select_ms": 0.0,
        "density": 1.0,
        "coverage": 1.0,
        "lines_vertical": None,
        "lines_slash": None,
        "dense_layers": 1,
    }


def test_a_head_that_would_compute_too_much_is_dense() -> None:
    query, key, value = (part[None] for part in tensors(4, 2, 100, 100, 16))
    turn = PrefillTurn(policy_of("a_shape", sinks=2, local=60, most_density=0.5))
    out = turn.attend(0, query, key, value, SCALING)
    assert relative_rms(out, dense_attention(query, key, value, SCALING)) < 1e-6
    assert (turn.report().density, turn.report().dense_layers) == (1.0, 1)


def test_the_last_rows_of_the_last_chunk_see_everything() -> None:
    query, key, value = (part[None] for part in tensors(4, 2, 96, 96, 16))
    exact = dense_attention(query, key, value, SCALING)
    for last, seen in ((True, True), (False, False)):
        turn = PrefillTurn(policy_of("tri_shape", sinks=1, local=2, dense_rows=7))
        turn.last_chunk = last
        out = turn.attend(0, query, key, value, SCALING)
        assert (relative_rms(out[:, :, -7:], exact[:, :, -7:]) < 1e-5) == seen
        assert relative_rms(out[:, :, 40:60], exact[:, :, 40:60]) > 1e-2


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_alpha_1_is_full_attention_over_five_turns(kind: str) -> None:
    full, ours = Engine(tiny.loaded(kind), load_profile("full")), sparse(kind, "prefill.alpha=1")
    for turn in range(5):
        ids = some_ids(70, seed=turn)
        expected, _ = run(full, ids, max_new_tokens=6)
        got, record = run(ours, ids, max_new_tokens=6)
        assert got == expected
        assert (record.density, record.alpha, record.lines_slash) == (1.0, 1.0, None)


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_the_record_says_what_was_chosen(kind: str) -> None:
    engine = sparse(kind, "prefill.alpha=0.5", "prefill.dense_rows=0")
    _, first = run(engine, some_ids(300), max_new_tokens=2)
    _, second = run(engine, some_ids(200, seed=1), max_new_tokens=2)
    windows = {"mistral": 2, "gemma2": 2, "gemma3_text": 1}.get(kind, 0)
    for record in (first, second):
        assert record.alpha == 0.5 and record.select_ms is not None
        if windows == 2:
            assert (record.density, record.dense_layers, record.select_ms) == (1.0, 2, 0.0)
            continue
        assert 0 < record.select_ms < record.prefill_ms
        assert record.coverage >= 0.5 and 0 < record.density < 1
        assert record.lines_slash >= 4 and record.lines_vertical >= 2
        assert record.dense_layers == windows


def test_too_small_an_input_is_dense_and_says_so() -> None:
    engine = sparse("llama", "prefill.alpha=0.5", "prefill.min_new=100", "prefill.min_keys=300")
    records = [run(engine, some_ids(n, seed=n), max_new_tokens=1)[1] for n in (200, 150, 50)]
    # 200 keys are too few, then 150 new over 351 are enough, then 50 new are too few.
    assert [record.dense_layers for record in records] == [2, 0, 2]
    assert [record.density == 1 for record in records] == [True, False, True]


def test_another_profile_takes_effect_with_the_next_turn() -> None:
    engine = sparse("llama", "prefill.alpha=0.5")
    assert run(engine, some_ids(200), max_new_tokens=1)[1].dense_layers == 0
    engine.set_profile(load_profile("full"))
    record = run(engine, some_ids(200, seed=1), max_new_tokens=1)[1]
    assert (record.dense_layers, record.alpha, record.profile) == (2, None, "full")


def test_a_turn_cancelled_before_its_first_chunk_chose_nothing() -> None:
    engine = sparse("llama")
    turn = list(engine.turn(some_ids(50), SamplingOptions(max_new_tokens=1), cancelled=lambda: True))
    record = turn[-1].record  # type: ignore[union-attr]
    assert (record.density, record.dense_layers, record.select_ms) == (None, None, None)


def test_a_model_that_keeps_the_plan_from_its_attention_is_refused() -> None:
    loaded = tiny.loaded("llama")
    forward = loaded.model.forward
    loaded.model.forward = lambda prefill=None, **rest: forward(**rest)
    engine = Engine(loaded, load_profile("full"))
    with pytest.raises(ModelError, match="keeps keyword arguments from its attention"):
        run(engine, some_ids(20))
    assert engine.tokens == []


def test_a_name_that_two_sections_have_must_be_said_whole() -> None:
    with pytest.raises(UsageError, match=r"--set sinks could be prefill.sinks or keep.sinks; say which"):
        load_profile("loopserve").with_overrides(["sinks=3"])
    assert load_profile("loopserve").with_overrides(["keep.sinks=3"]).keep.settings["sinks"] == 3


def test_chunks_for_choosing_are_long_where_activations_are_small() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choosing_chunk(cpu, torch.float32, 768) == 43_008
    assert choosing_chunk(cpu, torch.bfloat16, 14336) == 4096
    assert choosing_chunk(cuda, torch.bfloat16, 14336) == 36 * 1024
    assert choosing_chunk(cuda, torch.bfloat16, 64) == 65536


CHOSE = TurnRecord(
    profile="p", conversation_id="c", turn=1, density=0.0444, coverage=0.9551, alpha=0.95, select_ms=657.0,
    lines_vertical=336.9, lines_slash=64.0, dense_layers=0,
)  # fmt: skip


def test_a_turn_line_says_what_was_left_out() -> None:
    assert sparsity(CHOSE) == ["density 4.4%", "covers 95.5%", "337+64 lines in 657 ms"]
    assert sparsity(replace(CHOSE, coverage=None)) == ["density 4.4%", "337+64 lines in 657 ms"]
    blocks = replace(CHOSE, coverage=None, lines_vertical=None, lines_slash=None, alpha=None)
    assert sparsity(blocks) == ["density 4.4%", "blocks in 657 ms"]
    dense = replace(CHOSE, density=1.0, lines_vertical=None, lines_slash=None, tokens_new=3100)
    assert sparsity(dense) == ["dense: lines would have cost as much, 657 ms to see it"]
    assert sparsity(replace(dense, select_ms=0.0)) == ["dense: 3.1k new tokens, below where sparse pays"]
    assert sparsity(replace(dense, alpha=1.0)) == ["dense: alpha is 1"]
    assert sparsity(replace(dense, alpha=None)) == []
    assert "density 4.4%" in turn_line(CHOSE)


def test_replay_shows_choices_where_there_are_any() -> None:
    def shown(part: Any) -> str:
        console = Console(width=200, file=io.StringIO(), no_color=True)
        console.print(part)
        return console.file.getvalue()  # type: ignore[attr-defined]

    dense = TurnRecord(profile="full", conversation_id="c", turn=1, density=1.0, coverage=1.0, select_ms=0.0)
    for records, there in (([dense], False), ([dense, CHOSE], True)):
        text = shown(turn_tables(records, 1)[0]) + shown(summary_table(summarise(records)))
        assert ("slashes" in text, "choosing ms" in text, "95.5" in text, "4.44" in text) == (there,) * 4


def test_masked_layers_count_as_attention() -> None:
    """Attention that soft-caps its scores does not go through the turn, but its time is in the turn's report."""
    query, key, value = (part[None] for part in tensors(4, 2, 30, 50, 16))
    turn = PrefillTurn(policy_of("dense"))
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    loopserve_attention(module, query, key, value, None, SCALING, softcap=2.0, prefill=turn)
    assert turn.report().attention_ms > 0 and turn.layers == 1
