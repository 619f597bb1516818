"""The tests that need a GPU, by pytest, on as many processes as there are cores."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from loopserve_cli.bench.device.attempt import Record

# Each process holds a CUDA context of its own.
MOST_WORKERS = 14
# Less than the stage's limit, so that what is known by then is told.
LIMIT_S = 265
MARK = "pytest.mark.gpu"
RESULTS = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
LINE = re.compile(rf"\b({RESULTS}) (\S+::\S.*?)(?: - .*|\s*)$|^(\S+::\S.*?) ({RESULTS})\b")


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """One record: how many passed, failed and were skipped, and which failed; `finished` says if that is all."""
    del device
    folder = Path(__file__).parents[3] / "tests"
    why = "left out of a quick run" if scale == "quick" else missing(folder)
    if why is not None:
        yield {"skipped": why}
        return
    files = sorted(str(path) for path in folder.glob("test_*.py") if MARK in path.read_text(encoding="utf-8"))
    began = time.perf_counter()
    finished, output = output_of(command(files), folder.parent)
    results = results_of(output)
    yield {
        "files": len(files),
        "finished": finished,
        "seconds": time.perf_counter() - began,
        **{name.lower(): count for name, count in Counter(results.values()).items()},
        "failures": [name for name, result in results.items() if result in ("FAILED", "ERROR")],
        "tail": output.strip().splitlines()[-3:],
    }


def missing(folder: Path) -> str | None:
    """Why the tests cannot run here, None where they can."""
    if importlib.util.find_spec("pytest") is None:
        return "pytest is not installed"
    return None if folder.is_dir() else "no tests beside the package: run from a checkout"


def command(files: list[str]) -> list[str]:
    """Pytest on these files; without pytest-xdist in one process. The checkout's own flags may need other plugins."""
    spread = importlib.util.find_spec("xdist") is not None
    workers = ["-n", "auto", "--maxprocesses", str(MOST_WORKERS)] if spread else []
    return [sys.executable, "-m", "pytest", "-o", "addopts=", "-m", "gpu and not slow", "-v", *workers, *files]


def output_of(command: list[str], folder: Path) -> tuple[bool, str]:
    """Whether it ended in time, and what it printed."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        printed = late.stdout or b""
        return False, printed.decode(errors="replace") if isinstance(printed, bytes) else printed
    return True, done.stdout + done.stderr


def results_of(output: str) -> dict[str, str]:
    """Each test's result, from pytest's lines: with several processes the result stands before the name."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        match = LINE.search(line)
        if match:
            found[match[2] or match[3]] = match[1] or match[4]
    return found
