"""`bench device`: stages as processes with limits, their files, their tables, their costs, and a bare machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_clock import in_hand

from loopserve_cli import bench
from loopserve_cli.app import main
from loopserve_cli.bench import decode, kernels
from loopserve_cli.bench import device as bench_device
from loopserve_cli.bench.device import alone, stage_attention, stage_choosing, stage_tests, table
from loopserve_cli.bench.device.attempt import attempt
from loopserve_cli.bench.device.counting import counted
from loopserve_cli.bench.device.folder import DONE, FAILED, LATE, SKIPPED, Folder, Result
from loopserve_cli.bench.device.options import DeviceOptions
from loopserve_cli.bench.device.process import run_stage
from loopserve_cli.bench.device.stages import PART_S, PARTS, STAGES, Stage
from loopserve_cli.bench.device.written_costs import measured_costs, write_costs
from loopserve_cli.bench.kernels import clock
from loopserve_cli.bench.kernels import problem as problems
from loopserve_cli.bench.kernels.line_sets import KINDS, lines_of_kind
from loopserve_cli.bench.kernels.options import LAYERS, Layer
from loopserve_cli.bench.kernels.problem import Problem, planted_problem
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.policies.prefill import prefill_policy
from loopserve_cli.policies.prefill.costs_file import costs_text, read_costs
from loopserve_cli.profile import load_profile
from loopserve_kernels.executed import causal_entries
from loopserve_kernels.index import make_index

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


class Scripted(Stage):
    """A stage whose process is a line of Python."""

    __slots__ = ("code",)

    def command(self, device: str, scale: str) -> list[str]:
        return [sys.executable, "-c", self.code]


def scripted(code: str, name: str = "choosing", limit_s: float = 30.0, on: str | None = None) -> Scripted:
    stage = Scripted(name, "scripted", 1, limit_s, {}, on)
    object.__setattr__(stage, "code", code)
    return stage


def result_of(stage: str, records: list[dict[str, Any]], status: str = DONE, **other: Any) -> Result:
    return replace(Result(stage, status, "cpu", "cpu", 1.0, 10.0, [], records), **other)


# Stages and options


def test_parts_end_in_time_and_hold_every_stage() -> None:
    for part in PARTS:
        assert sum(stage.limit_s for stage in STAGES if stage.part == part) <= PART_S
    assert PART_S * len(PARTS) <= 25 * 60 and PART_S <= 9 * 60
    assert {stage.part for stage in STAGES} == set(PARTS)
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    chosen = [stage.name for part in PARTS for stage in DeviceOptions(part=part).chosen]
    assert sorted(chosen) == sorted(stage.name for stage in STAGES)


def test_a_stages_module_or_command_is_there() -> None:
    import importlib

    for stage in STAGES:
        if stage.own:
            assert set(stage.own) == {"gpu", "cpu", "quick"}
        else:
            assert callable(
                importlib.import_module(f"loopserve_cli.bench.device.stage_{stage.name.replace('-', '_')}").run
            )


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.own], ids=lambda stage: stage.name)
@pytest.mark.parametrize("scale", ["gpu", "cpu", "quick"])
def test_what_other_commands_are_asked_is_what_they_know(
    stage: Stage, scale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    for module, name in ((bench, "run_turns"), (decode, "run_decode"), (kernels, "run_kernels")):
        monkeypatch.setattr(module, name, lambda options: asked.append(options) or 0)
    assert main(stage.command("cpu", scale)[3:]) == 0, capsys.readouterr().err
    (options,) = asked
    assert options.json and type(options).__name__.lower().startswith(stage.name)
    model = getattr(options, "model", None)
    assert model is None or (model.model == ("random:Llama-3.1-8B" if scale == "gpu" else "demo"))
    assert (options if model is None else model).device == "cpu"


def test_which_stages_are_chosen() -> None:
    assert [stage.name for stage in DeviceOptions(stages=("memory", "environment")).chosen] == ["environment", "memory"]
    # Costs are computed from these, so they are measured too.
    asked = DeviceOptions(stages=("memory",), costs=Path("costs.toml"))
    assert [stage.name for stage in asked.chosen] == ["environment", "costs", "memory"]


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--part", "4"], "--part is 4, but must be one of 1, 2, 3"),
        (["--part", "1", "--stages", "choosing"], "give one of them"),
        (["--stages", "chosing"], "unknown stage 'chosing'; choose from environment, launches"),
        (["--device", "tpu"], "unknown --device 'tpu'"),
        (["--device", "cuda:63"], "--device cuda:63: "),
        (["--out", __file__], "is not a folder"),
        (["--costs", str(ROOT)], "is a folder; give a file"),
    ],
)
def test_wrong_flags_are_one_line(arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "device", *arguments]) == 2
    told = capsys.readouterr().err
    assert wrong in told and told.count("\n") == 1


# Processes


def test_a_stage_keeps_its_records_and_what_else_it_said() -> None:
    code = "import sys; print('{\"a\": 1}'); print('words'); print('{\"a\": 2}'); print('aside', file=sys.stderr)"
    result = run_stage(scripted(code), "cpu", "quick", 30)
    assert (result.status, result.reason) == (DONE, None)
    assert result.records == [{"a": 1}, {"a": 2}] and result.tail == ["words", "aside"]
    assert result.command[1] == "-c" and 0 < result.seconds < 30


def test_a_stage_that_fails_says_why_and_keeps_what_it_measured() -> None:
    result = run_stage(
        scripted("print('{\"a\": 1}', flush=True); raise ValueError('no such thing')"), "cpu", "quick", 30
    )
    assert result.status == FAILED and result.records == [{"a": 1}]
    assert result.reason == "exit 1: ValueError: no such thing"


def test_a_stage_that_crashes_or_measures_nothing_has_failed() -> None:
    crashed = run_stage(scripted("import os; os.kill(os.getpid(), 11)"), "cpu", "quick", 30)
    assert crashed.status == FAILED and crashed.reason == "signal 11: it said nothing"
    silent = run_stage(scripted("pass"), "cpu", "quick", 30)
    assert (silent.status, silent.reason) == (FAILED, "it measured nothing")


def test_a_stage_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(pid)!r}, "w").write(str(child.pid))
print('{{"a": 1}}', flush=True)
print('{{"cut o', end="", flush=True)
time.sleep(600)
"""
    result = run_stage(scripted(code), "cpu", "quick", 5)
    assert (result.status, result.reason) == (LATE, "took more than 5 s")
    assert result.records == [{"a": 1}] and result.seconds < 15
    assert gone(int(pid.read_text()))


def gone(pid: int) -> bool:
    """Whether the process ends soon; one that nobody waits for stays in the table as a zombie."""
    for _ in range(100):
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_stage_with_one_record_that_says_so_was_skipped() -> None:
    result = run_stage(scripted('print(\'{"skipped": "there is no pytest"}\')'), "cpu", "quick", 30)
    assert (result.status, result.reason) == (SKIPPED, "there is no pytest")


# Runs over several stages


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    stages = [
        scripted('print(\'{"what": "copy"}\')', "environment"),
        scripted("raise SystemExit(7)", "choosing"),
        scripted('print(\'{"way": "band"}\')', "attention"),
        scripted("print('{\"a\": 1}')", "tests", on="cuda"),
    ]
    monkeypatch.setattr(DeviceOptions, "chosen", property(lambda self: tuple(stages)))
    return stages


def test_a_failure_does_not_stop_the_others_and_a_second_run_asks_for_nothing_again(
    three: list[Scripted], tmp_path: Path
) -> None:
    options, folder, said = DeviceOptions(out=tmp_path), Folder(tmp_path), []
    results = bench_device.run_stages(options, folder, "cpu", "quick", said.append)
    assert [result.status for result in results] == [DONE, FAILED, DONE, SKIPPED]
    assert results[3].reason == "there is no GPU"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attention.json",
        "choosing.json",
        "environment.json",
        "tests.json",
    ]
    assert json.loads((tmp_path / "choosing.json").read_text())["reason"] == "exit 7: it said nothing"
    for stage in three:
        object.__setattr__(stage, "code", "raise SystemExit(9)")
    said.clear()
    again = bench_device.run_stages(options, folder, "cpu", "quick", said.append)
    assert again == results and all("already there" in line for line in said)
    (tmp_path / "choosing.json").unlink()
    assert bench_device.run_stages(options, folder, "cpu", "quick", said.append)[1].reason == "exit 9: it said nothing"


def test_the_exit_status_says_whether_all_went_well(three: list[Scripted], tmp_path: Path, capsys: Any) -> None:
    assert main(["bench", "device", "--device", "cpu", "--out", str(tmp_path)]) == 1
    object.__setattr__(three[1], "code", 'print(\'{"part": "lines"}\')')
    (tmp_path / "choosing.json").unlink()
    capsys.readouterr()
    assert main(["bench", "device", "--device", "cpu", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path)
    assert [stage["stage"] for stage in found["stages"]] == ["environment", "choosing", "attention", "tests"]


def test_results_of_another_machine_are_shown_and_their_costs_written(tmp_path: Path, capsys: Any) -> None:
    folder = Folder(tmp_path / "run")
    folder.write(result_of("environment", [MACHINE], device="cuda:0", scale="gpu"))
    folder.write(result_of("costs", [cost_record("bfloat16", 128)], device="cuda:0", scale="gpu"))
    costs = tmp_path / "costs.toml"
    assert main(["bench", "device", "--show", "--out", str(folder.path), "--costs", str(costs)]) == 0
    assert "NVIDIA H100 80GB HBM3, 16 cores" in capsys.readouterr().out
    assert [entry.measured_on for entry in read_costs(costs)] == ["NVIDIA H100 80GB HBM3"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["costs.json", "environment.json"]
    assert main(["bench", "device", "--show"]) == 2
    assert "--show needs a folder of results" in capsys.readouterr().err


def test_results_of_another_size_or_device_are_not_mixed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(result_of("environment", [{"what": "copy"}], scale="quick"))
    options = DeviceOptions(stages=("environment",), out=tmp_path)
    bench_device.check_folder(folder, options, "cpu", "quick")
    with pytest.raises(UsageError, match=r"holds environment of cpu, quick, and this is cuda:0, gpu"):
        bench_device.check_folder(folder, options, "cuda:0", "gpu")


def test_a_folder_that_is_not_ours_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "choosing.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UsageError, match=r"choosing.json: is no result of bench device"):
        Folder(tmp_path).read("choosing")


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    folder.write(result_of("choosing", [{"a": 1}]))
    before = (tmp_path / "choosing.json").read_text()
    with pytest.raises(TypeError):
        folder.write(result_of("choosing", [{"a": object()}]))
    assert (tmp_path / "choosing.json").read_text() == before and len(list(tmp_path.iterdir())) == 1
    assert folder.read("choosing") == result_of("choosing", [{"a": 1}])


# Figures


def test_what_fails_says_so_in_place_of_its_figures() -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("CUDA out of memory.\nTried to")

    assert attempt({"keys": 5}, fails) == {"keys": 5, "error": "RuntimeError: CUDA out of memory."}
    assert attempt({"keys": 5}, lambda: {"ms": 1.0}) == {"keys": 5, "ms": 1.0}


def test_a_cpu_has_no_graph_and_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock.captured_ms(lambda: None, CPU) == {"captured_ms": None, "refusal": "only a GPU has graphs"}
    assert clock.kernels_of(lambda: None, CPU) == {"kernels": None, "device_ms": None, "by_name": None}
    assert clock.median_ms(in_hand(monkeypatch).tick, CPU) == pytest.approx(62.5)


@pytest.mark.parametrize("size", [64, 128])
def test_a_planted_layer_has_lines_worth_choosing(size: int) -> None:
    layer = Layer(4, 2, size, "float32")
    problem = planted_problem(layer, 2048, 2048, CPU, 0)
    lines = prefill_policy(load_profile("loopserve-prefill").prefill).lines(
        problem.query, problem.key, problem.scaling, 32
    )
    assert lines is not None
    index = make_index(lines, 2048, 2048, 32, 1 << 24)
    assert index.entries is not None
    density = index.entries.double() / causal_entries(2048, 2048)
    assert float(density.min()) > 0.03 and float(density.max()) < 0.5
    assert int(lines.vertical_count.min()) > 20 and len(set(lines.vertical_count.tolist())) > 1
    again = planted_problem(layer, 2048, 2048, CPU, 0)
    assert torch.equal(problem.query, again.query) and problem.query.dtype == torch.float32
    assert planted_problem(replace(layer, dtype="bfloat16"), 64, 2048, CPU, 0).query.shape == (4, 64, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "keys"), [(4096, 4096), (1024, 8192)])
def test_lines_of_one_kind_have_about_the_density_asked_for(kind: str, rows: int, keys: int) -> None:
    lines = lines_of_kind(kind, 3, rows, keys, 0.1, 64, CPU)
    index = make_index(lines, rows, keys, 64, 64)
    assert index.entries is not None
    density = index.entries.double() / causal_entries(rows, keys)
    assert float(density.min()) > 0.03 and float(density.max()) < 0.2
    columns = int(0.1 * causal_entries(rows, keys) / rows)
    verticals, slashes = {
        "band": (0, columns),
        "slashes": (0, columns // 64 + 1),  # each costs a block's rows in columns, and offset 0 is always in
        "verticals": (columns, 1),
    }[kind]
    assert lines.vertical_count.tolist() == [verticals] * 3
    assert all(slashes - 1 <= count <= slashes for count in lines.slash_count.tolist())


def test_pytests_lines_are_counted_with_one_process_or_several() -> None:
    output = """
tests/test_dense.py::test_a[1-True] PASSED                    [ 10%]
[gw3] [ 20%] PASSED tests/test_dense.py::test_b[a b]
[gw0] [ 30%] FAILED tests/test_decode.py::test_c
tests/test_decode.py::test_d SKIPPED (needs a CUDA device)    [ 40%]
ERROR tests/test_decode.py::test_e
========= 2 passed, 1 failed =========
"""
    assert stage_tests.results_of(output) == {
        "tests/test_dense.py::test_a[1-True]": "PASSED",
        "tests/test_dense.py::test_b[a b]": "PASSED",
        "tests/test_decode.py::test_c": "FAILED",
        "tests/test_decode.py::test_d": "SKIPPED",
        "tests/test_decode.py::test_e": "ERROR",
    }


def test_tests_run_from_a_checkout_and_say_what_they_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_one.py").write_text(
        f"import pytest\n\n@{stage_tests.MARK}\ndef test_a(): pass\n\n@{stage_tests.MARK}\ndef test_b(): assert 0\n\n"
        "def test_of_a_cpu(): pass\n"
    )
    (tests / "test_chat.py").write_text("import no_such_package\n")  # it has nothing for a GPU, so nobody reads it
    finished, output = stage_tests.output_of(stage_tests.command([str(tests / "test_one.py")]), tmp_path)
    results = stage_tests.results_of(output)
    assert finished and sorted(results.values()) == ["FAILED", "PASSED"]
    monkeypatch.setattr(stage_tests, "LIMIT_S", 0.5)
    slow = [sys.executable, "-uc", "import time; print('t.py::test_a PASSED'); time.sleep(60)"]
    finished, output = stage_tests.output_of(slow, tmp_path)
    assert not finished


def test_missing_tests_are_a_reason(tmp_path: Path) -> None:
    assert stage_tests.missing(tmp_path / "tests") == "no tests beside the package: run from a checkout"
    assert stage_tests.missing(ROOT / "tests") is None


# What a GPU would be asked, on tensors without storage


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device whose tensors take a GPU's path; what is timed runs once, and what is read from it is 1."""

    def once(work: Any, device: torch.device, rounds: int = 5) -> float:
        work()
        return 1.0

    def problem(layer: Layer, rows: int, keys: int, device: torch.device, seed: int) -> Problem:
        shapes = (layer.heads, rows), (layer.groups, keys), (layer.groups, keys)
        dtype = getattr(torch, layer.dtype)
        parts = [torch.empty(*shape, layer.size, device=device, dtype=dtype) for shape in shapes]
        return Problem(*parts, layer.size**-0.5)

    monkeypatch.setitem(LAYERS, "meta", LAYERS["cuda"])
    monkeypatch.setitem(stage_attention.DTYPES, "meta", stage_attention.DTYPES["cuda"])
    monkeypatch.setattr(problems, "random_problem", problem)
    monkeypatch.setattr(stage_attention, "random_problem", problem)
    monkeypatch.setattr(stage_attention, "dense_candidates", lambda problem: {})
    for module in (stage_attention, stage_choosing):
        monkeypatch.setattr(module, "median_ms", once)
        monkeypatch.setattr(module, "cells_of", lambda index: 1)
    monkeypatch.setattr(stage_choosing, "dense_heads", lambda index: 1)
    return torch.device("meta")


def test_choosing_at_a_gpus_sizes_goes_through(meta: torch.device) -> None:
    with counted():
        records = list(stage_choosing.run(meta, "gpu"))
    # Torch's lower-right bias cannot be made while operations are counted.
    assert {record["part"] for record in records if "error" in record} <= {"dense attention"}
    assert {(record["rows"], record["keys"]) for record in records} == set(stage_choosing.SHAPES["gpu"])
    lines = [record for record in records if record["part"] == "lines"]
    assert {record["setting"] for record in lines} == {"as shipped", "share=group", "objective=lines"}
    assert all(record["launches"] > 3 for record in lines)


def test_attention_at_a_gpus_sizes_goes_through(meta: torch.device) -> None:
    with counted():
        records = list(stage_attention.run(meta, "gpu"))
    sparse = [record for record in records if record["way"].partition(",")[0] in KINDS]
    assert [record for record in sparse if "error" in record] == []
    assert {record["way"] for record in sparse} == {*KINDS, *(f"{kind}, wide" for kind in KINDS)}
    assert {(record["rows"], record["size"]) for record in sparse} == {
        (32768, 64),
        (32768, 128),
        (8192, 64),
        (8192, 128),
        (131072, 128),
    }


# Tables


def test_tables_show_figures_errors_and_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    good = {"keys": 1024, "size": 64, "dtype": "bfloat16", "eager_ms": 0.5, "captured_ms": None, "gb_per_s": 1234.0}
    results = [
        result_of("decode-attention", [good, {"keys": 9, "size": 64, "error": "RuntimeError: no"}]),
        result_of("tests", [{"skipped": "there is no GPU"}], SKIPPED, reason="there is no GPU"),
        result_of("kernels", [], LATE, reason="took more than 200 s"),
    ]
    table.print_results(results)
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "1,024" in line).split()
    assert row == ["1,024", "64", "bfloat16", "0.500", "n/a", "1,234"]
    assert "keys 9, size 64: RuntimeError: no" in out
    assert "took more than 200 s" in out and "there is no GPU" in out
    assert next(line for line in out.splitlines() if "reading keys" in line and "done" in line).split()[-2:] == [
        "2",
        "1",
    ]


def test_a_document_of_another_version_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_results([result_of("turns", [{"summary": {"prompt": {}}}]), result_of("environment", [MACHINE])])
    out = capsys.readouterr().out
    assert "turns: written by another version of loopserve" in out and "NVIDIA H100" in out


# Costs


MACHINE = {
    "what": "machine",
    "device": "NVIDIA H100 80GB HBM3",
    "gpu": {"name": "NVIDIA H100 80GB HBM3"},
    "platform": "Linux-6.1",
    "cpu": "EPYC",
    "torch_threads": 16,
    "cores_usable": 16,
    "packages": {"torch": "2.11.0", "platformdirs": None},
    "versions": {"torch": "2.11.0"},
    "timestamp": "2026-12-01T10:00:00+00:00",
}


def cost_record(dtype: str, size: int, **other: Any) -> dict[str, Any]:
    named = {"dense_cell": 1e-12, "sparse_cell": 2e-12, "sampled_pair": 3e-12, "fixed": 1e-4, "product": 5e-15}
    return {"dtype": dtype, "size": size, **named, **other}


def test_costs_are_written_from_what_was_measured(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run")
    folder.write(result_of("environment", [MACHINE]))
    records = [
        cost_record("bfloat16", 64),
        cost_record("bfloat16", 128, dense_cell=4e-12, fixed=3e-4, product=4e-15),
        {"dtype": "float32", "size": 64, "error": "RuntimeError: CUDA out of memory."},
    ]
    folder.write(result_of("costs", records))
    file = tmp_path / "settings" / "costs.toml"
    (new,) = write_costs(folder, file)
    assert new.dense_cell == {64: 1e-12, 128: 4e-12} and new.fixed == pytest.approx(2e-4) and new.product == 4e-15
    assert (new.measured_on, new.dtype, new.torch, new.date) == (MACHINE["device"], "bfloat16", "2.11.0", "2026-12-01")
    assert costs_text(read_costs(file)) == costs_text([new])
    # Written again, its own entry is replaced and another's is kept.
    other = replace(new, measured_on="cpu")
    file.write_text(costs_text([other, replace(new, fixed=9.0)]), encoding="utf-8")
    write_costs(folder, file)
    assert costs_text(read_costs(file)) == costs_text([other, new])


def test_no_costs_are_invented(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert measured_costs(folder) == []
    folder.write(result_of("environment", [MACHINE]))
    folder.write(result_of("costs", [{"dtype": "float32", "size": 64, "error": "RuntimeError: no"}], FAILED))
    with pytest.raises(LoopserveError, match="no costs were measured"):
        write_costs(folder, tmp_path / "costs.toml")
    assert not (tmp_path / "costs.toml").exists()


# Real runs


def test_the_costs_of_this_cpu_are_measured(tmp_path: Path) -> None:
    records = list(alone.records_of("decode-attention", CPU, "quick"))
    assert [record["keys"] for record in records] == [1024, 8192]
    assert all(record["gb_per_s"] > 0 and record["captured_ms"] is None for record in records)


ABSENT = "prompt_toolkit platformdirs bitsandbytes gguf peft matplotlib"


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Loopserve run from the checkout, on a Python without the packages that a bare GPU machine lacks."""
    folders = [str(ROOT / "tests" / "bare"), str(ROOT), str(ROOT / "kernels")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "ABSENT": ABSENT, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=280
    )


def test_the_bare_python_lacks_them() -> None:
    for name in ABSENT.split():
        assert f"No module named '{name}'" in bare("-c", f"import {name}").stderr


def test_a_bare_machine_measures_and_writes_costs(tmp_path: Path) -> None:
    costs = tmp_path / "costs.toml"
    asked = ["--quick", "--device", "cpu", "--stages", "environment,costs", "--out", str(tmp_path / "run")]
    done = bare("-m", "loopserve_cli", "bench", "device", *asked, "--costs", str(costs))
    assert done.returncode == 0, done.stderr
    assert "prompt_toolkit, platformdirs, bitsandbytes" in done.stdout  # told as not installed
    entries = read_costs(costs)
    assert [(entry.measured_on, entry.dtype) for entry in entries] == [("cpu", "float32"), ("cpu", "bfloat16")]
    for entry in entries:
        assert set(entry.dense_cell) == {64, 128} and 0 < entry.most_density() <= 1


@pytest.mark.slow
def test_a_bare_machine_runs_every_stage(tmp_path: Path) -> None:
    done = bare("-m", "loopserve_cli", "bench", "device", "--quick", "--device", "cpu", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = {stage.name: Folder(tmp_path).read(stage.name) for stage in STAGES}
    for name, result in results.items():
        assert result is not None
        assert (result.status, result.errors) == ((SKIPPED if name == "tests" else DONE), 0), result
        assert name == "tests" or result.records
    choosing = results["choosing"]
    assert choosing is not None
    assert {record["part"] for record in choosing.records} == {"dense attention", "lines", "index", "sparse attention"}
    assert all(record["launches"] > 0 for record in choosing.records if record["part"] == "lines")
