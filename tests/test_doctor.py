"""The doctor: arithmetic on model shapes, what it says of each machine, and its exit code."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from loopserve_cli.doctor import report
from loopserve_cli.doctor.check import GIB, Check
from loopserve_cli.doctor.fits import BF16_BYTES, NF4_BYTES, SHAPES, Shape, fits
from loopserve_cli.doctor.hardware import Gpu, disk_check, driver_version, gpu_checks, triton_check
from loopserve_cli.doctor.software import bitsandbytes_check, installed, software_checks
from loopserve_cli.errors import ModelError

SHAPE = {shape.model: shape for shape in SHAPES}
H100 = Gpu(0, "NVIDIA H100", (9, 0), 70 * GIB, 80 * GIB)
OLD = Gpu(1, "Tesla T4", (7, 5), 14 * GIB, 15 * GIB)
OLDER = Gpu(2, "GTX 1080", (6, 1), 7 * GIB, 8 * GIB)


# Published parameter counts; norms and biases, which the shapes leave out, are under a hundredth of a percent.
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("Llama-3.2-1B", 1_235_814_400),
        ("Llama-3.2-3B", 3_212_749_824),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-14B", 14_770_033_664),
    ],
)
def test_shapes_give_the_published_sizes(model: str, parameters: int) -> None:
    shape = SHAPE[model]
    assert shape.linear_parameters + shape.embedding_parameters == pytest.approx(parameters, rel=1e-4)


@pytest.mark.parametrize(("model", "kibibytes"), [("Llama-3.1-8B", 128), ("Qwen2.5-7B", 56), ("Llama-3.2-1B", 32)])
def test_kv_bytes_per_token(model: str, kibibytes: int) -> None:
    assert SHAPE[model].kv_bytes_per_token == kibibytes * 1024


def test_context_is_what_the_weights_leave() -> None:
    shape = Shape("toy", 1, 100, 0, 1, 1, 50, 1000, tied=True, context=10_000)
    # 20,000 linear and 100,000 embedding weights; 200 bytes of KV a token.
    assert shape.weight_bytes(BF16_BYTES) == 240_000
    assert shape.weight_bytes(NF4_BYTES) == 20_000 * 9 // 16 + 200_000
    assert shape.context_in(300_000, BF16_BYTES) == (270_000 - 240_000) // 200
    assert shape.context_in(260_000, BF16_BYTES) is None
    assert shape.context_in(10**9, BF16_BYTES) == 10_000


def test_fits_grow_with_memory_and_with_quantisation() -> None:
    small = {fit.model: fit for fit in fits(12 * GIB)}
    assert small["Llama-3.1-8B"].bf16_context_tokens is None
    assert small["Llama-3.1-8B"].nf4_context_tokens == SHAPE["Llama-3.1-8B"].context_in(12 * GIB, NF4_BYTES)
    assert all(fit.bf16_context_tokens == SHAPE[fit.model].context for fit in fits(80 * GIB))


@pytest.mark.parametrize(
    ("gpus", "driver", "cuda", "names", "advice"),
    [
        ([H100], "580.1", "13.0", ["GPU 0", "driver"], [None, None]),
        ([H100, OLD], "580.1", "13.0", ["GPU 0", "GPU 1", "driver"], [None, "--dtype float16", None]),
        ([], None, None, ["GPU"], ["the CPU is used"]),
        ([], "580.1", None, ["GPU"], ["install a CUDA build of torch"]),
        ([], "470.1", "13.0", ["GPU"], ["update the driver for CUDA 13.0"]),
    ],
)
def test_what_it_says_of_the_gpu(
    gpus: list[Gpu], driver: str | None, cuda: str | None, names: list[str], advice: list[str | None]
) -> None:
    checks = list(gpu_checks(gpus, driver, cuda))
    assert [check.name for check in checks] == names
    for check, part in zip(checks, advice, strict=True):
        assert check.status == ("ok" if part is None else "note")
        assert check.advice is None if part is None else part in (check.advice or "")


def test_gpu_line_has_name_capability_and_memory() -> None:
    assert next(gpu_checks([H100], None, "13.0")).found == "NVIDIA H100, capability 9.0, 70.0 GiB of 80.0 GiB free"


def test_triton_without_a_gpu_and_with_an_old_one() -> None:
    pytest.importorskip("triton")
    without = triton_check([])
    assert without.status == "ok"
    assert "no GPU: Triton kernels are not used, the CPU path is" in without.found
    assert "capability 7.0" in (triton_check([H100, OLDER]).advice or "")


def test_triton_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "install gcc" in (triton_check([H100]).advice or "")
    monkeypatch.setenv("CC", "/opt/cc")
    assert triton_check([H100]).status == "ok"


def test_driver_version_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.159.04\necho 580.159.04\n")
    program.chmod(0o755)
    assert driver_version() == "580.159.04"
    program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert driver_version() is None


def test_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() is None


def test_disk_of_a_cache_that_does_not_exist_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "not" / "there"
    assert disk_check(cache).found.startswith(f"{cache}: ")
    monkeypatch.setattr("loopserve_cli.doctor.hardware.SMALL_DISK", 2**70)
    assert "HF_HOME" in (disk_check(cache).advice or "")


@pytest.mark.parametrize(
    ("requirement", "status", "advice"),
    [
        ("torch>=2.9", "ok", None),
        ("torch>=99", "note", 'pip install "torch>=99"'),
        ("no-such-package-here>=1", "problem", 'pip install "no-such-package-here>=1"'),
    ],
)
def test_installed_packages(requirement: str, status: str, advice: str | None) -> None:
    check = installed(Requirement(requirement))
    assert (check.status, check.advice) == (status, advice)


def test_this_environment_is_whole() -> None:
    checks = {check.name: check for check in software_checks()}
    assert {"Python", "torch", "transformers", "packages"} <= set(checks)
    assert all(check.status != "problem" for check in checks.values())


def test_nf4_works_here() -> None:
    check = bitsandbytes_check("cpu")
    assert check.status == "ok"
    assert "nf4 works on cpu" in check.found


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Replaces what is looked at by a list the test fills."""
    found: list[Check] = []
    monkeypatch.setattr(report, "software_checks", lambda: list(found))
    monkeypatch.setattr(report, "find_gpus", lambda: [H100])
    monkeypatch.setattr(report, "device_checks", lambda _: [])
    return found


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_only_a_problem_fails(
    status: str, code: int, findings: list[Check], capsys: pytest.CaptureFixture[str]
) -> None:
    findings.append(Check("torch", status, "as found", "do this"))  # type: ignore[arg-type]
    assert report.run(as_json=True) == code
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (code == 0)
    assert document["checks"][0] == {"name": "torch", "status": status, "found": "as found", "advice": "do this"}
    assert [model["model"] for model in document["fits"]["models"]] == [shape.model for shape in SHAPES]
    # With torch missing there is no asking for a GPU, and the estimate is for main memory.
    assert document["fits"]["in"] == ("main memory" if status == "problem" else "GPU 0")


def test_demo_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny

    monkeypatch.setattr("loopserve_cli.engine.loader.load", lambda *_: tiny.loaded("llama"))
    check = report.demo_check()
    assert check.status == "ok"
    assert check.found.startswith("answers on cpu, float32 (")


def test_demo_that_is_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise ModelError("the demo model is missing")

    monkeypatch.setattr("loopserve_cli.engine.sources.demo_model_folder", missing)
    check = report.demo_check()
    assert (check.status, check.found) == ("problem", "does not answer: the demo model is missing")


def test_text_shows_findings_advice_and_estimates() -> None:
    stream = io.StringIO()
    checks = [Check("torch", "ok", "2.13.0"), Check("GPU", "note", "none", "use the CPU")]
    report.show(Console(file=stream, width=100), checks, "main memory", 12 * GIB)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ok      torch         2.13.0"
    assert lines[2].strip() == "-> use the CPU"
    assert "float32, twice bf16" in lines[-1]
    assert any(line.startswith("Llama-3.1-8B") and " no " in line for line in lines)
    assert "\x1b" not in stream.getvalue()
