"""Shared settings: tests import their helpers from this folder, and GPU tests run on a machine that has little else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Of the GPU's memory, for all workers' tensors; every process's CUDA context takes half a gigabyte beside them.
OF_GPU = 0.85

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a start keeps for the next one stays with the tests, and finds nothing of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        yield


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """The time limit that pyproject.toml sets is pytest-timeout's; without that plugin there is none, and no error."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds a test may take; needs pytest-timeout")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m gpu` only files that name the mark are imported: the others need packages that a GPU machine lacks."""
    if config.option.markexpr != "gpu" or collection_path.suffix != ".py":
        return None
    return None if "mark.gpu" in collection_path.read_text(encoding="utf-8") else True


def pytest_configure(config: pytest.Config) -> None:
    """Workers of pytest-xdist share a machine's cores and one GPU: each gets its share, and asks for no more."""
    if not config.pluginmanager.hasplugin("timeout"):
        config.addinivalue_line("markers", "timeout(seconds): kept by pytest-timeout, where that is installed")
    workers = workers_beside()
    if workers == 1:
        return
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for the processes that tests start
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(OF_GPU / workers)


def workers_beside() -> int:
    """How many processes of pytest-xdist share the machine, this one included."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, or where several processes would share it that were not asked to.

    Among several processes the tests with a time limit of their own begin: they are the longest, and the last to begin
    would keep one process busy while the others have nothing left to do.
    """
    if workers_beside() > 1:
        items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        reason = "needs a CUDA device"
    elif workers_beside() > 1 and "gpu" not in config.option.markexpr:
        reason = "several processes share the GPU only where it is asked for: -m gpu -n 14, or leave -n out"
    else:
        return
    for item in wanting:
        item.add_marker(pytest.mark.skip(reason=reason))
