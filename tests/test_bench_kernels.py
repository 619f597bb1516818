"""The kernel benchmark: line sets, rivals, the order and the ratios of timings, coverage, bad flags, and a real run."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from attention_oracle import exact_weights, random_lines, relative_rms, tensors, wanted_cells
from torch import Tensor

from loopserve_cli.app import main
from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.kernels.coverage import coverage_of_lines
from loopserve_cli.bench.kernels.dense import dense_candidates, history_and_own, pick_baseline, sdpa_call
from loopserve_cli.bench.kernels.flex import block_mask, flex_call
from loopserve_cli.bench.kernels.grid import Measured
from loopserve_cli.bench.kernels.layers import CoverageTurn, coverage_of, overall
from loopserve_cli.bench.kernels.line_sets import make_lines, widened
from loopserve_cli.bench.kernels.options import Grid, KernelsOptions, Layer
from loopserve_cli.bench.kernels.plan import Plan
from loopserve_cli.bench.kernels.problem import Problem, disagreement, random_problem
from loopserve_cli.bench.kernels.shape import LineSetFacts, Prepared
from loopserve_cli.bench.kernels.summary import summarise
from loopserve_cli.bench.kernels.variant import Timing, Variant, time_rounds, warm_up
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.policies.prefill import prefill_policy
from loopserve_cli.profile import load_profile
from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import causal_entries, executed_mask
from loopserve_kernels.index import build_index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash

CPU = torch.device("cpu")
LAYER = Layer(4, 2, 16, "float32")


def problem_of(rows: int, keys: int) -> Problem:
    return random_problem(LAYER, rows, keys, CPU, seed=3)


# Made lines


@pytest.mark.parametrize("density", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("rows", "keys"), [(100, 1000), (1000, 1000), (64, 2048)])
@pytest.mark.parametrize("shape", [(32, 1 << 24), (64, 64)])
def test_made_lines_execute_the_density_asked_for(density, rows, keys, shape):
    made = make_lines(3, rows, keys, density, shape, 0, CPU)
    cells = executed_mask(build_index(made.lines, keys, *shape), rows, keys)
    counted = cells.sum((1, 2)).double() / causal_entries(rows, keys)
    assert torch.equal(counted, made.density)
    # Single columns make it exact; the diagonal's own tile is the least there is.
    assert (counted - density).abs().max() < 2.5 / keys + (0.04 if density * keys < 64 else 0)


def test_made_lines_have_a_band_slashes_and_verticals_different_in_every_head():
    lines = make_lines(4, 4096, 4096, 0.2, (32, 1 << 24), 0, CPU).lines
    slashes = [lines.slash[head, : lines.slash_count[head]].tolist() for head in range(4)]
    verticals = [lines.vertical[head, : lines.vertical_count[head]].tolist() for head in range(4)]
    for head in range(4):
        band = next(d for d in range(4096) if d not in set(slashes[head]))
        assert band > 16
        assert len(slashes[head]) - band > 2
        assert len(verticals[head]) > 50
    assert len({tuple(part) for part in slashes}) == len({tuple(part) for part in verticals}) == 4
    again = make_lines(4, 4096, 4096, 0.2, (32, 1 << 24), 0, CPU).lines
    assert torch.equal(lines.slash, again.slash)


def test_widened_lines_are_the_same_lines():
    lines = random_lines(2, 50, seed=1)
    wide = widened(lines, 40, 50)
    assert wide.vertical.shape == (2, 40) and wide.slash.shape == (2, 40)
    assert torch.equal(wanted_cells(lines, 20, 50), wanted_cells(wide, 20, 50))
    assert torch.equal(*(executed_mask(build_index(part, 50, 32, 64), 20, 50) for part in (lines, wide)))


# Rivals


def test_sdpa_held_to_a_backend_is_lower_right_causal_with_and_without_folded_groups():
    from torch.nn.attention import SDPBackend

    for rows in (20, 50):
        problem = problem_of(rows, 50)
        exact = dense_attention(problem.query[None], problem.key[None], problem.value[None], problem.scaling)[0]
        for folded in (False, True):
            out = sdpa_call(problem, SDPBackend.MATH, folded)()
            assert relative_rms(out, exact) < 1e-5, (rows, folded)


def test_a_history_and_the_own_part_are_merged():
    problem = problem_of(20, 50)

    def partial(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        key, value = (part.repeat_interleave(2, 1) for part in (key, value))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, scale=problem.scaling
        )
        return out, lse[..., None]  # as cuDNN gives it

    exact = dense_attention(problem.query[None], problem.key[None], problem.value[None], problem.scaling)[0]
    assert relative_rms(history_and_own(problem, partial)(), exact) < 1e-5


class FakeClock(Clock):
    """Calls the work, and takes the milliseconds that stand in `times` for its answer."""

    def __init__(self, times: dict[float, float]) -> None:
        super().__init__(CPU)
        self.times = times

    def ms(self, work: Any, repeats: int = 1) -> float:
        answers: list[Tensor] = []
        result = work()
        answers += [result] if isinstance(result, Tensor) else []
        return self.times[float(answers[0].sum())] if answers else 99.0


def refuse() -> Tensor:
    raise RuntimeError("No available kernel.\nAborting execution.")


def test_the_fastest_dense_way_that_is_right_is_the_baseline():
    ours = torch.full((1, 1, 1), 2.0)
    candidates = {
        "slow": lambda: torch.full((1, 1, 1), 2.0001),
        "quick": lambda: torch.full((1, 1, 1), 2.0002),
        "wrong": lambda: torch.full((1, 1, 1), 3.0),
        "not a number": lambda: torch.full((1, 1, 1), float("nan")),
        "refuses": refuse,
    }
    clock = FakeClock({float(torch.tensor(2.0001)): 5.0, float(torch.tensor(2.0002)): 4.0, 3.0: 1.0})
    best = pick_baseline(candidates, ours, clock)
    assert best.name == "quick"
    assert best.tried["quick"] == 4.0 and best.tried["slow"] == 5.0
    assert "differs from ours" in best.tried["wrong"]
    assert "differs from ours" in best.tried["not a number"]
    assert best.tried["refuses"] == "No available kernel."
    with pytest.raises(LoopserveError, match="no dense attention to compare with: refuses: No available"):
        pick_baseline({"refuses": refuse}, ours, clock)


def test_the_cpu_has_one_dense_way_each():
    assert list(dense_candidates(problem_of(50, 50))) == ["SDPA"]
    assert list(dense_candidates(problem_of(20, 50))) == ["dense_attention"]


@pytest.mark.parametrize(("rows", "keys"), [(300, 700), (640, 640), (50, 300)])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gets_the_same_cells(rows, keys):
    from torch.nn.attention.flex_attention import flex_attention

    problem = problem_of(rows, keys)
    # A band that fills some blocks, one slash and two verticals: other blocks are partly or not at all executed.
    slash = torch.cat([torch.arange(220).expand(4, -1), torch.tensor([[250], [290], [330], [280]])], 1)
    lines = fixed_lines(torch.tensor([[3, 50], [7, 200], [0, 1], [128, 129]]), slash, keys)
    index = build_index(lines, keys, *block_shape(16, torch.float32, CPU))
    exact = vertical_slash(problem.query, problem.key, problem.value, index, problem.scaling)
    assert disagreement(flex_call(problem, index, flex_attention)(), exact) is None
    mask = block_mask(index, rows, keys)
    cells = executed_mask(index, rows, keys)
    padded = torch.nn.functional.pad(cells, (0, -keys % 128, 0, -rows % 128)).unflatten(1, (-1, 128))
    blocks = padded.unflatten(3, (-1, 128)).any(4).any(2)
    assert torch.equal(mask.to_dense()[0].bool(), blocks)
    causal = torch.arange(0, keys, 128) <= torch.arange(keys - rows, keys, 128)[:, None] + 127
    assert rows < 300 or bool((causal & ~blocks).any())
    full = [set(row[:count]) for row, count in full_blocks(mask)]
    assert rows < 300 or any(full)
    for place, found in enumerate(full):
        head, row = divmod(place, -(-rows // 128))
        for column in found:
            assert cells[head, row * 128 : row * 128 + 128, column * 128 : column * 128 + 128].all()


def full_blocks(mask: Any) -> list[tuple[list[int], int]]:
    counts = mask.full_kv_num_blocks[0].flatten().tolist()
    return list(zip(mask.full_kv_indices[0].flatten(0, 1).tolist(), counts, strict=True))


# Order and clock


def test_variants_alternate_and_the_first_to_go_changes():
    log: list[str] = []
    variants = [Variant(name, None, lambda name=name: log.append(name)) for name in "abc"]
    warm = warm_up(variants, 1, 2, Clock(CPU))
    assert log == ["a", "a", "b", "b", "c", "c"]  # the second calls, since the first ones were short
    log.clear()
    once = [replace(first, first_ms=50.0, second_ms=None) for first in warm]
    timings = time_rounds(variants, once, 3, Clock(CPU))
    assert "".join(log) == "abc" + "bca" + "cab"
    assert [(t.variant, t.round, t.repeats) for t in timings[:4]] == [
        ("a", 1, 1),
        ("b", 1, 1),
        ("c", 1, 1),
        ("b", 2, 1),
    ]


def test_short_calls_are_repeated_and_their_mean_taken():
    clock = Clock(CPU)
    assert [clock.repeats(ms) for ms in (100.0, 20.0, 8.0, 0.0)] == [1, 1, 3, 50]
    count: list[int] = []
    assert clock.ms(lambda: count.append(1), 7) < 1.0
    assert len(count) == 7


def test_a_gpu_is_timed_by_events_between_two_waits(monkeypatch):
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.name = f"event {sum(word.startswith('made') for word in log)}"
            log.append(f"made {self.name}")

        def record(self, stream: str) -> None:
            log.append(f"{self.name} on {stream}")

        def elapsed_time(self, end: Event) -> float:
            log.append(f"{self.name} to {end.name}")
            return 12.0

    fake = SimpleNamespace(
        Event=Event, synchronize=lambda device: log.append("wait"), current_stream=lambda device: "stream"
    )
    monkeypatch.setattr(torch, "cuda", fake)
    clock = Clock(torch.device("cuda", 0))
    assert clock.ms(lambda: log.append("work"), 3) == 4.0
    assert log[2:] == [
        "wait", "event 0 on stream", "work", "work", "work", "event 1 on stream", "wait", "event 0 to event 1"
    ]  # fmt: skip
    log.clear()
    clock.first_ms(lambda: log.append("work"))
    assert log == ["work", "wait"]


# Ratios


def timings_of(number: int, dense: float, attend: float, **more: float) -> list[Timing]:
    found = {"dense": dense, "own_dense": 2 * dense, "choose": 1.0}
    common = [Timing(8, 16, name, None, number, ms, 1) for name, ms in found.items()]
    own = {"index": 1.0, "attend": attend, **more}
    return common + [Timing(8, 16, name, 0.25, number, ms, 1) for name, ms in own.items()]


def measured_of(*rounds: list[Timing]) -> Measured:
    made = LineSetFacts(0.25, 0.2, 0.2, 0.2, 1, 1)
    timings = [timing for part in rounds for timing in part]
    return Measured(8, 16, len(rounds), None, Prepared((), [made], "SDPA", {"SDPA": 1.0}, None, {}), [], timings)


def test_ratios_are_taken_within_a_round():
    [row] = summarise([measured_of(timings_of(2, 100, 50), timings_of(1, 10, 2), timings_of(3, 30, 10))])
    assert row["attend_gain"] == {"median": 3.0, "low": 2.0, "high": 5.0}
    assert row["total_gain"] == {"median": 2.5, "low": 100 / 52, "high": 2.5}
    assert row["attend_ceiling"]["median"] == 5.0
    assert row["total_ceiling"]["high"] == pytest.approx(100 / (2 + 20))
    assert row["own_efficiency"]["median"] == pytest.approx(0.2 * 60 / 10)
    assert row["choosing_share"]["high"] == pytest.approx(0.2)
    assert row["attend_ms"] == {"median": 10, "low": 2, "high": 50}
    assert row["flex_ratio"] is None
    assert (row["rows"], row["keys"], row["density"], row["executed"]) == (8, 16, 0.25, 0.2)


def test_flex_is_compared_where_it_ran_and_skipped_shapes_have_no_row():
    skipped = Measured(8, 16, 0, skipped="no time")
    [row] = summarise([skipped, measured_of(timings_of(1, 10, 2, flex=5.0))])
    assert row["flex_ratio"]["median"] == 2.5


# Time


def test_shapes_go_from_little_work_to_much_each_once():
    grid = Grid((64, 4096, None), (4096, 16384), (0.1,), 3, 100.0)
    assert grid.shapes == [(64, 4096), (64, 16384), (4096, 4096), (4096, 16384), (16384, 16384)]


def test_what_does_not_fit_has_fewer_rounds_or_is_left_out():
    now = [0.0]
    plan = Plan(Grid((None,), (100, 1000, 10000), (0.1,), 5, 100.0), lambda: now[0])
    assert plan.share_s(0) == pytest.approx(100 / 3)
    assert plan.refusal(0) is None
    assert [plan.fitting_rounds(1.0, left) for left in (30.0, 3.5, 0.1)] == [5, 3, 1]
    now[0] = 10.0
    plan.learn(0, prepare_s=0.02, round_s=0.01, flex="no GPU")
    assert plan.refusal(1) is None
    assert plan.share_s(1) == pytest.approx(45)
    now[0] = 20.0
    plan.learn(1, prepare_s=2.0, round_s=1.0, flex="no GPU")
    assert "foretold to take 299.7 s of the 80.0 s" in plan.refusal(2)
    assert "--budget" in plan.refusal(2)


def test_flex_is_left_out_once_it_failed_or_compiles_too_long():
    grid = Grid((None,), (100, 200, 400), (0.1,), 5, 90.0)
    plan = Plan(grid, lambda: 0.0)
    assert plan.flex_refusal(0) is None
    plan.learn(0, prepare_s=11.0, round_s=0.5, flex=None)
    assert plan.flex_refusal(1) is None
    plan.learn(1, prepare_s=61.5, round_s=0.5, flex=None)
    assert "60 s" in plan.flex_refusal(2)
    failed = Plan(grid, lambda: 0.0)
    failed.learn(0, prepare_s=1.0, round_s=0.5, flex="FlexAttention: n/a: no")
    assert failed.flex_refusal(1) == "FlexAttention: n/a: no"


# Coverage


@pytest.mark.parametrize("plans", [4, 2, 1])
@pytest.mark.parametrize(("rows", "keys"), [(150, 150), (70, 150), (64, 64), (1, 40)])
def test_coverage_over_all_rows_is_that_of_brute_force(plans, rows, keys):
    query, key, _ = (part.double() for part in tensors(4, 2, rows, keys, 16))
    lines = random_lines(plans, keys, seed=5, dense=0 if plans == 4 else None)
    index = build_index(lines, keys, 32, 16)
    flagged = index.dense.clone()
    flagged[-1] = True
    index = replace(index, dense=flagged) if plans > 1 else index
    weights = exact_weights(query, torch.arange(keys - rows, keys), key, 0.3)
    held = coverage_of_lines(query, key, 0.3, lines, index, dense_rows=20, rows_at_once=64)
    for found, cells in (
        (held.lines, wanted_cells(lines, rows, keys)),
        (held.executed, executed_mask(index, rows, keys, dense_rows=20)),
    ):
        every = cells.repeat_interleave(4 // plans, 0)
        exact = (weights * every).sum(2).mean(1)
        assert torch.allclose(found, exact, rtol=0, atol=1e-12)
    assert (held.lines <= held.executed + 1e-12).all()
    assert plans == 1 or held.executed[-1] == pytest.approx(1)


def test_a_real_model_shows_its_queries_after_rope_and_answers_as_ever():
    loaded = tiny.loaded("llama")
    ids = torch.arange(90).tolist()
    profile = load_profile("loopserve-prefill").with_overrides(["prefill.local=4", "prefill.alpha=0.8"])
    policy = prefill_policy(profile.prefill)
    found = coverage_of(loaded, ids, policy, lambda text: None)
    assert [(part.layer, part.tokens, part.heads) for part in found] == [(0, 90, 4), (1, 90, 4)]
    for part in found:
        assert part.sampled >= 0.8 - 1e-6
        assert part.worst_head <= part.lines <= part.executed + 1e-9 <= 1 + 1e-6
        assert 0 < part.density <= 1
    turn = CoverageTurn(policy, lambda text: None)
    with torch.inference_mode():
        inputs = torch.tensor([ids])
        ours = loaded.model(input_ids=inputs, use_cache=False, prefill=turn).logits
        plain = tiny.model("llama", "sdpa")(input_ids=inputs).logits
    assert relative_rms(ours, plain) < 1e-4
    [mean] = overall(found)
    assert mean["lines"] == pytest.approx((found[0].lines + found[1].lines) / 2)
    assert mean["worst_head"] == min(part.worst_head for part in found)
    assert mean["heads"] == 8


# Flags


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"device": "tpu"}, "--device"),
        ({"dtype": "int8"}, "--dtype"),
        ({"objective": "best"}, "--objective"),
        ({"rounds": 0}, "--rounds"),
        ({"heads": 0}, "--heads"),
        ({"heads": 6, "groups": 4}, "--heads 6 is no multiple of --groups 4"),
        ({"size": 300}, "--size"),
        ({"seed": -1}, "--seed"),
        ({"budget": 0.0}, "--budget"),
        ({"budget": float("nan")}, "--budget"),
        ({"keys": "4096,x"}, "--keys: 'x'"),
        ({"keys": ""}, "--keys"),
        ({"rows": "64,-1"}, "--rows: '-1'"),
        ({"rows": "512", "keys": "256"}, "--rows 512"),
        ({"density": "0"}, "--density: '0'"),
        ({"density": "2,101"}, "--density: '101'"),
        ({"density": "nan"}, "--density"),
        ({"coverage_tokens": "8"}, "--coverage-tokens"),
        ({"plot": Path("gains.pdf")}, "--plot"),
        ({"plot": Path("nowhere/gains.png")}, "its folder is not there"),
    ],
)
def test_options_that_cannot_be_run(wrong, flag):
    with pytest.raises(UsageError) as caught:
        KernelsOptions(**wrong)
    assert flag in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_by_device():
    options = KernelsOptions(keys="4k,300", rows="all,64", density="50,2%", rounds=2)
    grid = options.grid("cuda")
    assert (grid.keys, grid.rows, grid.densities, grid.rounds) == ((300, 4096), (64, None), (0.02, 0.5), 2)
    assert options.layer("cuda") == Layer(32, 8, 128, "bfloat16")
    assert options.layer("cpu") == Layer(4, 2, 64, "float32")
    assert KernelsOptions(heads=1).layer("cpu") == Layer(1, 1, 64, "float32")
    assert KernelsOptions(coverage=False).tokens == ()
    assert len(KernelsOptions().grid("cuda").shapes) == 23


def test_a_folder_and_a_locked_file_are_no_plot(tmp_path, monkeypatch):
    folder = tmp_path / "gains.png"
    folder.mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        KernelsOptions(plot=folder)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match="cannot be written"):
        KernelsOptions(plot=tmp_path / "new.png")


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else real(name, *rest)
    )
    with pytest.raises(UsageError, match=r"pip install 'loopserve\[plot\]'"):
        KernelsOptions(plot=tmp_path / "new.png")


def test_cuda_without_cuda_is_wrong_usage(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "kernels", "--device", "cuda"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "--device cuda" in error[0] and "torch sees no GPU" in error[0]


def test_a_dialogue_beyond_the_model_is_refused_before_anything_is_timed(capsys):
    assert main(["bench", "kernels", "--coverage-tokens", "1000000"]) == 2
    said = capsys.readouterr()
    assert "--coverage-tokens 1000000: the demo model reads at most" in said.err
    assert "warming up" not in said.err and said.out == ""


# A real run

SMALL = "bench kernels --device cpu --keys 256 --rows 16,all --density 20,60 --rounds 2 --size 16 --heads 2 --groups 1"


def test_a_real_run(tmp_path, capsys):
    plot = tmp_path / "gains.png"
    assert main([*SMALL.split(), "--coverage-tokens", "300", "--json", "--plot", str(plot)]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert list(whole) == [
        "command", "environment", "layer", "grid", "shapes", "records", "summary", "coverage"
    ]  # fmt: skip
    assert whole["command"]["options"]["plot"] == str(plot)
    assert whole["environment"]["device"] == "cpu" and whole["environment"]["dtype"] == "float32"
    assert whole["layer"] == {"heads": 2, "groups": 1, "size": 16, "dtype": "float32"}
    assert [(shape["rows"], shape["keys"], shape["rounds"]) for shape in whole["shapes"]] == [
        (16, 256, 2),
        (256, 256, 2),
    ]
    assert [shape["baseline"] for shape in whole["shapes"]] == ["dense_attention", "SDPA"]
    for shape in whole["shapes"]:
        assert "CUDA" in shape["flex"]
        assert set(shape["first_ms"]) == {"choose", "own_dense"} and shape["first_ms"]["choose"] > 0
        assert len(shape["warm_up"]) == 7 and all(call["first_ms"] > 0 for call in shape["warm_up"])
    # Three that every density shares, then index and attention at each of two; two shapes, two rounds.
    assert len(whole["records"]) == 7 * 2 * 2
    assert all(record["ms"] > 0 for record in whole["records"])
    assert len(whole["summary"]) == 4
    for row in whole["summary"]:
        assert abs(row["executed"] - row["density"]) < 0.02
        mine = {
            (record["variant"], record["round"]): record["ms"]
            for record in whole["records"]
            if (record["rows"], record["keys"]) == (row["rows"], row["keys"])
            and record["density"] in (None, row["density"])
        }
        gains = sorted(mine["dense", number] / mine["attend", number] for number in (1, 2))
        assert [row["attend_gain"]["low"], row["attend_gain"]["high"]] == gains
    coverage = whole["coverage"]
    assert (coverage["profile"], coverage["alpha"]) == ("loopserve-prefill", 0.95)
    assert [row["layer"] for row in coverage["layers"]] == [0, 1, 2, 3]
    assert coverage["overall"][0]["tokens"] == 300
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_tables_of_a_real_run(capsys):
    assert main([*SMALL.split(), "--no-coverage", "--objective", "lines"]) == 0
    out = capsys.readouterr().out
    assert "2 heads over 1, size 16, float32 on cpu" in out
    assert "16 new rows" in out and "256 new rows" in out
    assert out.count("FlexAttention: n/a") == 1
    assert "first calls with all that they compile and tune: choosing 0." in out
    assert "made-up tensors have no lines" in out
    assert "coverage over all rows" not in out
    assert "\x1b" not in out


def test_a_run_without_time_says_what_it_left_out(capsys):
    assert main([*SMALL.split(), "--no-coverage", "--budget", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert "16 rows over 256 keys: left out" in out
    assert "give a larger --budget" in out


def test_a_plot_over_lengths(tmp_path):
    from loopserve_cli.bench.kernels.plot import draw

    rows = [{**summarise([measured_of(timings_of(1, 10, 2))])[0], "keys": keys} for keys in (16, 32)]
    draw(rows, "title", tmp_path / "gains.png")
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")
