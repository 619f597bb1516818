"""`pytest -m gpu` finds every GPU test on a machine that has torch, transformers and pytest, and little else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest

HERE = Path(__file__).parent
GPU = "pytest.mark.gpu"
LONG = ("timeout", "b")


def collected(*plugins: str, also: tuple[str, ...] = ()) -> list[str]:
    """What `pytest -m gpu` would run, by file and test."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", "--no-header", *also]
    folders = [HERE, HERE.parent, HERE.parent / "kernels"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command += [part for plugin in plugins for part in ("-p", plugin)]
    done = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def marked(tree: ast.Module) -> set[str]:
    """The tests of a file that carry the mark: themselves, in a parameter, by a name for those, or with the file."""
    given = [node for node in tree.body if isinstance(node, ast.Assign) and GPU in ast.unparse(node.value)]
    names = {target.id for node in given for target in node.targets if isinstance(target, ast.Name)}

    def carries(decorator: ast.expr) -> bool:
        used = {node.id for node in ast.walk(decorator) if isinstance(node, ast.Name)}
        return GPU in ast.unparse(decorator) or bool(used & names)

    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {test.name for test in tests if "pytestmark" in names or any(map(carries, test.decorator_list))}


def test_every_gpu_test_is_collected_where_packages_of_the_chat_are_not_installed() -> None:
    found = {tuple(line.partition("[")[0].split("::")) for line in collected("bare_machine")}
    files = {file: marked(ast.parse(file.read_text(encoding="utf-8"))) for file in HERE.rglob("test_*.py")}
    wanted = {(file.relative_to(HERE.parent).as_posix(), name) for file, names in files.items() for name in names}
    assert found == wanted
    assert len({file for file, _ in found}) >= 7


@pytest.mark.slow
def test_no_file_that_is_left_out_has_a_gpu_test() -> None:
    assert collected("bare_machine") == collected(also=("-m", "(gpu)"))


@pytest.mark.parametrize(
    ("gpu", "workers", "asked", "why"),
    [
        (False, "1", "gpu", "needs a CUDA device"),
        (True, "1", "not slow", None),
        (True, "14", "gpu and not slow", None),
        (True, "2", "not slow", "several processes share the GPU only where it is asked for"),
    ],
)
def test_processes_share_a_gpu_only_where_they_are_told_to(
    gpu: bool, workers: str, asked: str, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
    marks: list[pytest.MarkDecorator] = []
    wanting = SimpleNamespace(get_closest_marker=lambda name: name == "gpu", add_marker=marks.append)
    other = SimpleNamespace(get_closest_marker=lambda name: None)
    conftest.pytest_collection_modifyitems(SimpleNamespace(option=SimpleNamespace(markexpr=asked)), [other, wanting])  # type: ignore[arg-type, list-item]
    assert [mark.kwargs["reason"].partition(":")[0] for mark in marks] == ([] if why is None else [why])


@pytest.mark.parametrize(("workers", "order"), [("1", "abc"), ("2", "bac")])
def test_the_longest_begin_where_processes_share_the_work(
    workers: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
    long = pytest.mark.timeout(900)
    items = [
        SimpleNamespace(name=name, get_closest_marker=lambda mark, name=name: long if (mark, name) == LONG else None)
        for name in "abc"
    ]
    conftest.pytest_collection_modifyitems(SimpleNamespace(), items)  # type: ignore[arg-type]
    assert "".join(item.name for item in items) == order
