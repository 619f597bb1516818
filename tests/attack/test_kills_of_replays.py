"""A replay of the demo model is ended by a signal: every finished turn is on the disk, and the run goes on."""

from __future__ import annotations

import json
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loopserve_cli import app

WORDS = "demo demo:long --profile full --profile loopserve --max-turns 2 --max-new-tokens 6 --repeat 20 --json".split()
TURNS = 160
# Of a machine that does much else; only a replay that hangs takes as long.
PATIENCE_S = 240
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
Begun = Callable[..., subprocess.Popen[str]]
# What does not depend on how fast or how full the machine was.
MEASURES = ("turns", "failed", "tokens_new", "tokens_output", "density", "coverage", "agreement", "tokens_reasoning")


def hears_hangups() -> None:
    """Tests that run under nohup ignore SIGHUP, and what they start would inherit that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def begun() -> Iterator[Begun]:
    """Begins a replay; none outlives its test."""
    begun: list[subprocess.Popen[str]] = []

    def begin(out: Path, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "loopserve_cli", "replay", *WORDS, "--out", str(out)]
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": hears_hangups}
        begun.append(subprocess.Popen(command, env=environ, **(usual | options)))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def records(out: Path) -> list[dict[str, Any]]:
    """Every line but one that a kill tore."""
    lines = (out / "records.jsonl").read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def lines_in(out: Path) -> int:
    file = out / "records.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for_turns(process: subprocess.Popen[str], out: Path, turns: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        if lines_in(out) >= turns:
            return
        time.sleep(0.002)
    process.kill()
    raise AssertionError(f"ended, or took too long, before {turns} turns: {process.communicate()}")


def measures(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: row[key] for key in MEASURES} for name, row in summary.items()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_a_replay_like_ctrl_c(number: signal.Signals, begun: Begun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = begun(out)
    wait_for_turns(process, out, 3)
    process.send_signal(number)
    if number != signal.SIGINT:
        process.send_signal(number)  # the system and the shell both tell of a terminal that closes
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == CODES[number]
    measured = len(records(out))
    assert 3 <= measured < TURNS
    assert json.loads(said)["records"] == records(out)
    assert errors.splitlines()[-1] == f"interrupted: {measured} turns were measured before that"
    summary = json.loads((out / "summary.json").read_text())["summary"]
    assert sum(row["turns"] for row in summary.values()) == measured
    assert {path.name for path in out.iterdir()} == {
        "run.json", "records.jsonl", "output_ids.jsonl", "records.csv", "summary.json", "summary.csv", "report.html",
    }  # fmt: skip


def test_a_terminal_that_closes_under_the_live_table_loses_nothing(tmp_path: Path) -> None:
    out, seen = tmp_path / "out", b""
    command = [sys.executable, "-m", "loopserve_cli", "replay", *WORDS[:-1], "--out", str(out)]
    child, terminal = pty.fork()
    if not child:
        hears_hangups()
        os.execve(sys.executable, command, os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color"})
    until = time.monotonic() + PATIENCE_S
    while (b"TTFT ms" not in seen or lines_in(out) < 4) and time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert b"/160 turns" in seen
    measured = len(records(out))
    assert 4 <= measured < TURNS
    summary = json.loads((out / "summary.json").read_text())["summary"]
    assert sum(row["turns"] for row in summary.values()) == measured


@pytest.mark.slow
def test_a_killed_replay_goes_on_and_ends_like_an_unbroken_one(
    begun: Begun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    unbroken = begun(whole)
    document = json.loads(unbroken.communicate(timeout=PATIENCE_S)[0])
    process = begun(out)
    wait_for_turns(process, out, 5)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -9
    before = records(out)
    assert 5 <= len(before) < TURNS and not (out / "summary.json").exists()
    assert app.main(["replay", *WORDS, "--resume", str(out)]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert measures(resumed["summary"]) == measures(document["summary"])
    assert len(resumed["records"]) == TURNS
    for mine, first in zip(resumed["records"], before, strict=False):
        assert mine["ttft_ms"] == first["ttft_ms"]
    for mine, other in zip(resumed["records"], document["records"], strict=True):
        for key in ("conversation_id", "profile", "repeat", "turn", "output_text", "tokens_cached", "agreement"):
            assert mine[key] == other[key]


def test_a_killed_replay_has_every_turn_on_the_disk(begun: Begun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = begun(out)
    wait_for_turns(process, out, 4)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -9
    kept = records(out)
    assert len(kept) >= 4
    assert [(r["conversation_id"], r["profile"], r["turn"]) for r in kept[:4]] == [
        ("demo", "full", 1), ("demo", "full", 2), ("demo", "loopserve", 1), ("demo", "loopserve", 2),
    ]  # fmt: skip
    assert all(r["ttft_ms"] > 0 and r["output_text"] is not None for r in kept)
    assert json.loads((out / "run.json").read_text())["fingerprints"]["model"]["model"] == "demo"


def test_a_disk_that_fills_up_is_one_line(begun: Begun, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def little_room() -> None:
        # The run's own file fits, and some records; then the kernel refuses the rest of a write.
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))

    process = begun(out, preexec_fn=little_room, stdout=subprocess.PIPE)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    kept = records(out)
    assert (out / "records.jsonl").read_bytes().endswith(b"\n") and 1 <= len(kept) < TURNS
    told = [line for line in errors.splitlines() if line.startswith("loopserve: ")]
    assert told == [
        f"loopserve: {out}: the last turn could not be kept: File too large; "
        f"free some space, and go on with --resume {out}"
    ]
    assert len(json.loads(said)["records"]) == len(kept) + 1
