"""Signals to a replay with workers, and to one of them: no process is left over, and no turn that ended is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopserve_cli import app

WORDS = "demo demo demo --profile full --profile loopserve --max-turns 4 --max-new-tokens 6 --repeat 12".split()
TURNS = 288
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
# What depends on the machine, and on how far its process had come.
MEASURED_HERE = ("itl_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "rss_bytes")

Begun = Callable[[Path], subprocess.Popen[str]]
pytestmark = pytest.mark.slow


def hears_signals() -> None:
    """Tests that run in the background may ignore these, and what they start would inherit that."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def begun() -> Iterator[Begun]:
    """Begins a replay with two workers; none outlives its test."""
    begun: list[subprocess.Popen[str]] = []

    def begin(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "loopserve_cli", "replay", *WORDS, "--workers", "2", "--out", str(out)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        # A session of its own: what a terminal sends goes to all of its processes.
        whole = {"env": environ, "preexec_fn": hears_signals, "start_new_session": True}
        begun.append(subprocess.Popen(command, **(pipes | whole)))
        return begun[-1]

    yield begin
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(what: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < end, process.communicate(timeout=10)
        time.sleep(0.01)


def records(out: Path) -> list[dict[str, Any]]:
    file = out / "records.jsonl"
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def both_busy(out: Path) -> bool:
    return len({row["conversation_id"] for row in records(out)}) >= 2


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def all_gone(processes: list[psutil.Process], seconds: float = 10) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def same(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in row if not key.endswith("_ms") and key not in MEASURED_HERE}


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGHUP, True)])
def test_a_signal_ends_all_and_keeps_what_was_measured(
    number: signal.Signals, to_all: bool, begun: Begun, tmp_path: Path
) -> None:
    process = begun(tmp_path / "out")
    until(lambda: both_busy(tmp_path / "out"), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(workers_of(process)) == 2
    if to_all:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == CODES[number]
    assert all_gone(children)
    measured = len(records(tmp_path / "out"))
    assert 2 <= measured < TURNS
    assert errors.splitlines()[-1] == f"interrupted: {measured} turns were measured before that"
    assert "Traceback" not in errors


def test_workers_end_by_themselves_when_the_one_who_started_them_is_killed(begun: Begun, tmp_path: Path) -> None:
    process = begun(tmp_path / "out")
    until(lambda: both_busy(tmp_path / "out"), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    errors = process.communicate(timeout=60)[1]
    assert all_gone(children)
    assert "Traceback" not in errors
    assert len(records(tmp_path / "out")) >= 2


def test_a_killed_worker_and_a_killed_run_end_like_one_process(
    begun: Begun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    process = begun(out)
    until(lambda: both_busy(out), process)
    workers_of(process)[0].kill()
    until(lambda: len(workers_of(process)) == 2, process)
    process.kill()
    errors = process.communicate(timeout=60)[1]
    assert "was ended by SIGKILL (out of memory?) at dialogue demo" in errors
    before = len(records(out))
    assert 2 <= before < TURNS
    assert app.main(["replay", *WORDS, "--resume", str(out), "--workers", "1"]) == 0
    assert f"{TURNS - before} of {TURNS} turns are missing" in capsys.readouterr().err
    assert app.main(["replay", *WORDS, "--out", str(alone)]) == 0
    assert [same(row) for row in records(out)] == [same(row) for row in records(alone)]
    assert len(records(out)) == TURNS
