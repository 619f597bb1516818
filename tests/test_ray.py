"""Dialogues are shared among the actors of a Ray cluster: as among processes, in results and in what a death costs."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from replay_fakes import options, transcript
from test_workers import TALK, records, replayed
from worker_fakes import open_broken, open_fake

from loopserve_cli.engine.share import Share
from loopserve_cli.errors import LoopserveError, ModelError, UsageError
from loopserve_cli.replay import run
from loopserve_cli.replay.workers.ray_pool import Room, about, joined, room_of


def test_without_ray_a_line_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    path = transcript(tmp_path / "talk.jsonl", ("x", TALK))
    with pytest.raises(LoopserveError, match=r"needs Ray, which is not installed; pip install 'loopserve\[ray\]'"):
        run(replace(options(path), ray="local"), open_fake)


def test_what_workers_take_of_a_cluster():
    assert Room(gpus=4, processors=64, least=16).shares(None, 100) == [Share("cuda:0", 1)] * 4
    assert Room(gpus=4, processors=64, least=16).shares(2, 100) == [Share("cuda:0", 1)] * 2
    assert Room(gpus=0, processors=6, least=2).shares(None, 100) == [Share("cpu", 1)] * 6
    assert Room(gpus=0, processors=6, least=2).shares(2, 100) == [Share("cpu", 2)] * 2
    assert Room(gpus=0, processors=6, least=6).shares(None, 2) == [Share("cpu", 3)] * 2
    with pytest.raises(UsageError, match="--workers 5, but the Ray cluster has 4 GPUs; give --workers 4"):
        Room(gpus=4, processors=64, least=16).shares(5, 100)
    assert about([Share("cuda:0", 1)] * 2, "auto").startswith("2 workers of Ray (auto) with one GPU each; those of one")


def test_nodes_are_counted_as_the_device_asks():
    class Cluster:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            both = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
            return [both, {"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"GPU": 9.0}}]

    assert room_of(Cluster, "auto") == Room(2, 12, 4)
    assert room_of(Cluster, "cpu") == Room(0, 12, 4)

    class Small:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    with pytest.raises(UsageError, match="--device cuda, but the Ray cluster has no GPU"):
        room_of(Small, "cuda")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster of two processors on this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # its workers find the fakes
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    quiet = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen(
        [*start, *quiet], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    time.sleep(5)  # it answers before its node is there
    yield f"127.0.0.1:{port}"
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(60)
    for child in psutil.wait_procs(started, 10)[1]:
        child.kill()


@pytest.mark.slow
def test_a_cluster_gives_the_records_of_one_process_and_bears_a_killed_worker(cluster, tmp_path, capsys):
    mortal = [("one", "A1"), (f"once {tmp_path / 'died'}", "A2"), ("three", "A3")]
    path = transcript(tmp_path / "talk.jsonl", ("x", mortal), ("y", TALK), ("z", TALK[:1]))
    given = options(path, "full", "loop", repeat=2)
    found = replayed(given, tmp_path / "ray", ray=cluster)
    assert (tmp_path / "died").exists()
    error = capsys.readouterr().err
    assert error.startswith(f"2 workers of Ray ({cluster}) with 1 processor each; ")
    assert "at dialogue x, which is tried once more" in error
    assert "dashboard" not in error and "Traceback" not in error
    assert replayed(given, tmp_path / "alone") == found
    with pytest.raises(ModelError, match="^no such model"):
        run(replace(given, ray=cluster, workers=1), open_broken)
    with pytest.raises(UsageError, match="--workers 3, but the Ray cluster has 2 processors"):
        run(replace(given, ray=cluster, workers=3), open_fake)
    deadly = transcript(tmp_path / "deadly.jsonl", ("x", [("die", "A1"), *TALK]), ("y", TALK))
    found = replayed(options(deadly), tmp_path / "deadly", code=1, ray=cluster)
    assert [(row["conversation_id"], row["turn"], bool(row["error"])) for row in found] == [
        ("x", 1, True), ("y", 1, False), ("y", 2, False), ("y", 3, False),
    ]  # fmt: skip
    assert "the second one at this dialogue (3 later turns not run)" in found[0]["error"]


@pytest.mark.slow
def test_sigterm_ends_a_cluster_of_this_machine_and_what_was_measured_is_there(tmp_path):
    pytest.importorskip("ray")
    words = "demo demo --profile full --profile loopserve --max-turns 4 --max-new-tokens 6 --repeat 20".split()
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "loopserve_cli", "replay", *words, "--ray", "local", "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"},
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while not ((out / "records.jsonl").exists() and len(records(out)) > 3):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)  # which Ray would take for itself
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert errors.splitlines()[-1] == f"interrupted: {len(records(out))} turns were measured before that"
    assert not psutil.wait_procs(started, 20)[1]


@pytest.mark.slow
def test_where_nobody_answers():
    pytest.importorskip("ray")
    with pytest.raises(LoopserveError, match=r"--ray 127.0.0.1:9: no cluster answers \(.*Connection refused\)"):
        joined("127.0.0.1:9")
