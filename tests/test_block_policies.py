"""FlexPrefill and XAttention: against plain float64 implementations, and what a turn under them reports."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from attention_oracle import exact_weights, relative_rms, tensors
from block_oracle import flexprefill_blocks, xattention_blocks
from launches import counted
from test_engine import run, some_ids
from test_head_figures import ended, mean
from test_prefill import SCALING, policy_of
from torch import Tensor

from loopserve_cli.engine.engine import Engine
from loopserve_cli.policies.prefill import BlockPolicy, ChosenLines, PrefillTurn
from loopserve_cli.profile import load_profile
from loopserve_kernels.block_index import executed_blocks, make_block_index
from loopserve_kernels.blocks import BlockGrid, Blocks
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.divergence import root_divergence

SHAPES = [(40, 40), (33, 90), (64, 64), (1, 50), (5, 97), (70, 130)]
SETTINGS = {
    "flexprefill": {"gamma": 0.6, "tau": 0.1, "min_budget": 16, "block": 16},
    "xattention": {"threshold": 0.5, "stride": 4, "block": 16},
}


def pairs(blocks: Blocks, head: int) -> set[tuple[int, ...]]:
    """The chosen (row block, key block) pairs of a head, by absolute block."""
    return {(row + blocks.grid.first, column) for row, column in blocks.chosen[head].nonzero().tolist()}


def peaked(query: Tensor, key: Tensor, by: float) -> tuple[Tensor, Tensor]:
    """Half of the heads attend to far fewer keys than the others."""
    query = query.clone()
    query[::2] *= by
    return query, key


@pytest.mark.parametrize(("rows", "keys"), SHAPES)
@pytest.mark.parametrize("tau", [0.0, 0.2, 1.0])
def test_flexprefill_chooses_what_the_paper_s_algorithms_do(rows: int, keys: int, tau: float) -> None:
    query, key = peaked(*tensors(4, 2, rows, keys, 16)[:2], 3.0)
    blocks = policy_of("flexprefill", **SETTINGS["flexprefill"] | {"tau": tau}).blocks(query, key, SCALING)
    expected, aware = flexprefill_blocks(query, key, SCALING, 16, 0.6, tau, 16)
    assert [pairs(blocks, head) for head in range(4)] == expected
    assert all(aware) if tau == 1 else True
    assert not any(aware) if tau == 0 else True


def test_both_patterns_occur_side_by_side() -> None:
    query, key = peaked(*tensors(4, 2, 70, 130, 16)[:2], 3.0)
    assert set(flexprefill_blocks(query, key, SCALING, 16, 0.6, 0.2, 16)[1]) == {True, False}


@pytest.mark.parametrize(("rows", "keys"), SHAPES)
@pytest.mark.parametrize(("threshold", "stride"), [(0.5, 4), (0.9, 16), (0.7, 1)])
def test_xattention_chooses_what_the_paper_s_algorithm_does(
    rows: int, keys: int, threshold: float, stride: int
) -> None:
    query, key = peaked(*tensors(4, 2, rows, keys, 16)[:2], 3.0)
    blocks = policy_of("xattention", threshold=threshold, stride=stride, block=16).blocks(query, key, SCALING)
    expected = xattention_blocks(query, key, SCALING, 16, threshold, stride)
    assert [pairs(blocks, head) for head in range(4)] == expected


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("column", [False, True])
def test_a_planted_column_or_diagonal_is_found(name: str, column: bool) -> None:
    """A block of keys that every row looks for, or for every row the key 65 before it, in few blocks."""
    generator = torch.Generator().manual_seed(0)
    key, query = (torch.randn(1, 512, 64, generator=generator) * 0.3 for _ in range(2))
    if column:
        key[0, 160:176] = torch.eye(64)[0] * 10
        query[0, :, 0] = 6.0
    else:
        query[0, 65:] += 20 * key[0, :-65]
    share = {"gamma": 0.9, "tau": 0.0, "min_budget": 0} if name == "flexprefill" else {"threshold": 0.9}
    blocks = policy_of(name, **SETTINGS[name] | share).blocks(query, key, 0.3)
    found = [pair for pair in pairs(blocks, 0) if pair[0] >= 16]
    for row in range(16, 32):
        assert (row, 10 if column else row - 4) in found
    assert len(found) < 16 * 24.5 / 3, len(found)


@pytest.mark.parametrize("rows", [200, 40, 5])
def test_flexprefill_s_coverage_is_that_of_its_last_rows(rows: int) -> None:
    query, key, _ = tensors(4, 2, rows, 200, 16)
    policy = policy_of("flexprefill", **SETTINGS["flexprefill"])
    blocks = policy.blocks(query, key, SCALING)
    cells = executed_blocks(make_block_index(blocks))
    count = min(16, rows)
    weights = exact_weights(query[:, -count:], torch.arange(200 - count, 200), key, SCALING)
    exact = (weights * cells[:, -count:]).sum((1, 2)) / count
    assert torch.allclose(blocks.coverage.double(), exact, atol=1e-5)
    assert (exact < 0.999).any()


def test_the_divergence_is_the_textbook_s() -> None:
    p, q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]), torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.75, 0.25]])
    half = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert root_divergence(p, q).tolist() == pytest.approx([math.sqrt(math.log(2)), 0.0, math.sqrt(half)])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_turn_under_blocks_reports_what_it_executes(name: str) -> None:
    turn = PrefillTurn(policy_of(name, **SETTINGS[name]), chosen=ChosenLines(1))
    query, key, value = (part[None] for part in tensors(4, 2, 150, 200, 16))
    out = turn.attend(0, query, key, value, SCALING)
    assert isinstance(turn.policy, BlockPolicy)
    blocks = turn.policy.blocks(query[0], key[0], SCALING)
    cells = executed_blocks(make_block_index(blocks))
    weights = exact_weights(query[0], torch.arange(50, 200), key[0], SCALING) * cells
    exact = weights / weights.sum(-1, keepdim=True) @ value[0].double().repeat_interleave(2, 0)
    assert relative_rms(out[0], exact) < 1e-5
    report = turn.report()
    assert report.density == pytest.approx(float(cells.sum()) / (4 * (150 * 50 + 150 * 151 // 2)))
    assert 0 < report.density < 1 and report.dense_layers == 0 and report.select_ms > 0
    assert (report.lines_vertical, report.lines_slash) == (None, None)
    assert (report.coverage is None) == (name == "xattention")
    heads = turn.heads()
    assert heads is not None and mean(heads.density) == pytest.approx(report.density)
    assert turn.chosen is not None and not turn.chosen.any  # it has no lines to keep


@pytest.mark.parametrize("name", SETTINGS)
def test_groups_that_are_not_asked_stay_dense_in_their_own_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = PrefillTurn(policy_of(name, **SETTINGS[name]))
    monkeypatch.setattr(type(turn.policy.routes), "asked", lambda *_: [1])
    query, key, value = (part[None] for part in tensors(4, 2, 150, 200, 16))
    out = turn.attend(0, query, key, value, SCALING)
    whole = PrefillTurn(policy_of(name, **SETTINGS[name]))
    monkeypatch.undo()
    sparse = whole.attend(0, query, key, value, SCALING)
    dense = dense_attention(query, key, value, SCALING)
    assert relative_rms(out[:, :2], dense[:, :2]) < 1e-6 and relative_rms(out[:, 2:], sparse[:, 2:]) < 1e-6
    assert relative_rms(sparse, dense) > 1e-2
    heads = turn.heads()
    assert heads is not None and heads.density[0][:2] == (1.0, 1.0) and max(heads.density[0][2:]) < 1


@pytest.mark.parametrize("name", SETTINGS)
def test_a_head_whose_blocks_cost_too_much_runs_dense(name: str) -> None:
    query, key, value = (part[None] for part in tensors(4, 2, 150, 200, 16))
    turn = PrefillTurn(policy_of(name, **SETTINGS[name], most_density=0.01))
    # The device's costs refuse anything so short, so here they are not asked.
    turn._pays = lambda query, keys: True  # type: ignore[method-assign]
    assert relative_rms(turn.attend(0, query, key, value, SCALING), dense_attention(query, key, value, SCALING)) < 1e-6
    assert (turn.report().density, turn.report().dense_layers) == (1.0, 1)
    # What was dense is not asked again until the dialogue has grown by half.
    assert turn.policy.routes.asked(0, 2, 10, 250, 1) == []
    assert turn.policy.routes.asked(0, 2, 100, 350, 1) == [0, 1]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize(("name", "whole"), [("flexprefill", "gamma=1"), ("xattention", "threshold=1")])
def test_the_whole_share_is_full_attention_over_five_turns(kind: str, name: str, whole: str) -> None:
    full = Engine(tiny.loaded(kind), load_profile("full"))
    ours = Engine(tiny.loaded(kind), load_profile(name).with_overrides([whole, "block=16"]))
    for turn in range(5):
        ids = some_ids(70, seed=turn)
        expected, _ = run(full, ids, max_new_tokens=6)
        got, record = run(ours, ids, max_new_tokens=6)
        assert got == expected
        assert (record.density, record.select_ms, record.lines_slash) == (1.0, 0.0, None)


@pytest.mark.parametrize("name", SETTINGS)
def test_blocks_that_cover_everything_are_full_attention_too(name: str) -> None:
    """Without the closed gate: all blocks are really chosen, over a history that no block ends with."""
    full, ours = Engine(tiny.loaded("llama"), load_profile("full")), Engine(tiny.loaded("llama"), load_profile(name))
    nearly = {"gamma": 1 - 1e-9, "min_budget": 4096} if name == "flexprefill" else {"threshold": 1 - 1e-12}
    ours.policy = policy_of(name, **SETTINGS[name] | nearly)
    for turn in range(3):
        ids = some_ids(70, seed=turn)
        expected, _ = run(full, ids, max_new_tokens=6)
        got, record = run(ours, ids, max_new_tokens=6)
        assert got == expected and record.select_ms > 0 and record.density == 1.0


@pytest.mark.parametrize("name", SETTINGS)
def test_the_engine_s_record_and_heads_tell_blocks(name: str) -> None:
    settings = [f"{key}={value}" for key, value in SETTINGS[name].items()]
    engine = Engine(tiny.loaded("llama"), load_profile(name).with_overrides(settings))
    engine.keeps_heads = True
    ended(engine, 300)
    done = ended(engine, 200, seed=1)
    record = done.record
    assert record.density is not None and 0 < record.density < 1 and record.chose_lines
    assert (record.lines_vertical, record.lines_slash, record.alpha) == (None, None, None)
    assert (record.coverage is None) == (name == "xattention")
    assert done.heads is not None and mean(done.heads.density) == pytest.approx(record.density)


def test_a_grid_counts_blocks_from_the_first_key() -> None:
    grid = BlockGrid(37, 50, 16)
    assert (grid.first, grid.before, grid.rows, grid.columns) == (0, 13, 4, 4)
    cpu = torch.device("cpu")
    assert grid.heights(cpu).tolist() == [3, 16, 16, 2]
    later = BlockGrid(5, 37, 16)
    assert (later.first, later.before, later.heights(cpu).tolist()) == (2, 0, [5])
    assert later.ahead(cpu).tolist() == [[2, 1, 0]]


@pytest.mark.parametrize(("name", "most"), [("flexprefill", 170), ("xattention", 90)])
def test_choosing_blocks_waits_for_nothing_and_launches_little(name: str, most: int) -> None:
    """On tensors of the meta device, at the shape of an 8B model: 8,192 new rows over 32,768 keys of one layer."""
    turn = PrefillTurn(policy_of(name))
    query, key = (torch.empty(1, *shape, 128, device="meta") for shape in ((32, 8192), (8, 32768)))
    with counted() as found:
        turn.attend(0, query, key, key, 0.1)
    assert found.triton["block_sparse_kernel"] == 1
    assert 10 < found.launches <= most, (found.launches, found.torch)
    assert found.waits.total() == 0, found.waits
