"""What is freed is there again without page faults, and can be given back; counted in processes of their own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

SIZE = 64 * 2**20
PAGES = SIZE // 4096
SCRIPT = f"""
import json, resource, sys
from loopserve_cli.engine.host_memory import give_back, keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray({SIZE}).find(b"x")
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed() if sys.argv[1] == "keep" else None
found = [faults(), faults()]
give_back()
print(json.dumps([kept, *found, faults()]))
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")


def counted(mode: str) -> list[int]:
    command = [sys.executable, "-c", SCRIPT, mode]
    found: list[int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def test_freed_memory_is_faulted_in_once_and_again_after_it_was_given_back() -> None:
    kept, first, second, after = counted("keep")
    assert kept
    assert second < PAGES // 100 < PAGES // 2 < min(first, after)


def test_the_allocator_left_alone_faults_every_time() -> None:
    _, first, second, _ = counted("leave")
    assert min(first, second) > PAGES // 2


def test_a_prefiller_on_a_cpu_keeps_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    import tiny
    import torch

    from loopserve_cli.engine import prefiller

    asked: list[str] = []
    monkeypatch.setattr(prefiller, "keep_freed", lambda: asked.append("keep"))
    on_cpu = tiny.loaded("llama")
    prefiller.Prefiller(replace(on_cpu, device=torch.device("cuda")))
    assert asked == []
    prefiller.Prefiller(on_cpu)
    assert asked == ["keep"]
