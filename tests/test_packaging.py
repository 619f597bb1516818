"""The package: what the wheel holds, that it works elsewhere, and that no module is called `kernels`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LARGEST_WHEEL = 24 * 2**20


def finish(command: list[str | Path], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    finish([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT])
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel; it borrows the other packages by path, and so no checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    finish([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    finish([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel])
    purelib = finish([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout.strip()
    (Path(purelib) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_nothing_in_kernels_can_be_imported_by_itself() -> None:
    assert {path.name for path in (ROOT / "kernels").iterdir()} - {"__pycache__"} == {"README.md", "loopserve_kernels"}


def test_kernels_import_only_torch_and_triton() -> None:
    found = set()
    for file in (ROOT / "kernels" / "loopserve_kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import"
                found.add((node.module or "").partition(".")[0])
    assert found - set(sys.stdlib_module_names) <= {"torch", "triton", "loopserve_kernels"}


def test_the_linter_refuses_to_import_kernels() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", "x.py", "-"]
    for line in ("import kernels\n", "from kernels import get_kernel\n"):
        finished = subprocess.run(command, input=line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert finished.returncode == 1
        assert "loopserve_kernels" in finished.stdout


def test_transformers_is_not_misled_in_the_repository() -> None:
    code = """
import importlib.metadata as metadata, json, torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import is_kernels_available

model = LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                     num_attention_heads=2, num_key_value_heads=1))
logits = model(torch.tensor([[1, 2, 3]])).logits
try:
    installed = bool(metadata.version("kernels"))
except metadata.PackageNotFoundError:
    installed = False
print(json.dumps([list(logits.shape), bool(logits.isfinite().all()), bool(is_kernels_available()), installed]))
"""
    shape, finite, available, installed = json.loads(finish([sys.executable, "-c", code]).stdout)
    assert (shape, finite) == ([1, 3, 32], True)
    assert installed or not available


def test_the_wheel_holds_two_packages_and_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [information] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        assert "loopserve = loopserve_cli.__main__:run" in archive.read(information).decode()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"loopserve_cli", "loopserve_kernels"}
    here = {path.name for path in (ROOT / "profiles").glob("*.toml")}
    assert {name.rpartition("/")[2] for name in names if name.startswith("loopserve_cli/profiles/")} == here
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_wheel_holds_what_the_page_of_a_run_is_made_from(wheel: Path) -> None:
    here = {path.name for path in (ROOT / "loopserve_cli" / "measure" / "report" / "assets").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("loopserve_cli/measure/report/assets/")]
    assert {name.rpartition("/")[2] for name in names} == here >= {"report.css", "report.html", "report.js"}


def test_the_wheel_holds_the_demo(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in ("model/config.json", "model/model.safetensors", "model/tokenizer.json"):
        assert f"loopserve_cli/demo/{name}" in names
    for name in ("demo", "long", "xlong"):
        assert f"loopserve_cli/demo/transcripts/{name}.jsonl" in names


def test_the_metadata_names_the_tested_ranges() -> None:
    declared = {text.partition(";")[0].strip() for text in metadata.requires("loopserve") or []}
    assert {"torch<2.15,>=2.9", "transformers<5.25,>=5.15", "triton>=3.5"} <= declared
    pinned = dict(
        line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert pinned["torch"] == "2.13.0"
    assert pinned["transformers"].startswith("5.24."), "what is pinned is the newest that the range admits"


def test_the_wheel_works_elsewhere(elsewhere: Path) -> None:
    top = Path("/").resolve()
    where = "import loopserve_cli, loopserve_kernels as k; print(loopserve_cli.__file__); print(k.__file__)"
    for file in finish([elsewhere / "python", "-c", where], top).stdout.splitlines():
        assert Path(file).is_relative_to(elsewhere.parent)
    assert "replay" in finish([elsewhere / "loopserve", "--help"], top).stdout
    shown = finish([elsewhere / "loopserve", "profiles", "show", "full"], top).stdout
    assert "loopserve_cli/profiles/full.toml" in shown.splitlines()[0]


@pytest.mark.slow
def test_the_wheel_replays_the_demo_elsewhere(elsewhere: Path) -> None:
    command: list[str | Path] = [elsewhere / "loopserve", "replay", "demo", "--json", "--max-turns", "1"]
    document = json.loads(finish(command, Path("/").resolve()).stdout)
    [record] = document["records"]
    assert record["error"] is None
    assert record["ttft_ms"] > 0
    assert record["output_text"]
