"""One stage as a process: nothing that it does can stop the others, and at its limit it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from loopserve_cli.bench.device.folder import DONE, FAILED, LATE, SKIPPED, Result
from loopserve_cli.bench.device.stages import Stage

# Lines of what a stage said that its result keeps.
TAIL = 12


def run_stage(stage: Stage, device: str, scale: str, limit_s: float) -> Result:
    """Run it to its end or its limit, with all processes that it starts."""
    command = stage.command(device, scale)
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = finished(command, limit_s, out, err)
        printed = [(line, record_in(line)) for line in lines_of(out)]
        said = [*(line for line, record in printed if record is None), *lines_of(err)]
    records = [record for _, record in printed if record is not None]
    status, reason = outcome(code, limit_s, records, said)
    seconds = time.perf_counter() - began
    return Result(stage.name, status, device, scale, seconds, limit_s, command, records, reason, said[-TAIL:])


def finished(command: Sequence[str], limit_s: float, out: BinaryIO, err: BinaryIO) -> int | None:
    """The exit code, None if it had to be killed; on Ctrl-C it is killed too."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:  # not yet waited for, so the group is still its own
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def outcome(
    code: int | None, limit_s: float, records: Sequence[dict[str, Any]], said: Sequence[str]
) -> tuple[str, str | None]:
    """The status, and the reason for one that is not done."""
    if code is None:
        return LATE, f"took more than {limit_s:.0f} s"
    if code != 0:
        last = said[-1] if said else "it said nothing"
        return FAILED, f"signal {-code}: {last}" if code < 0 else f"exit {code}: {last}"
    if not records:
        return FAILED, "it measured nothing"
    skipped = records[0].get("skipped") if len(records) == 1 else None
    return (DONE, None) if skipped is None else (SKIPPED, str(skipped))


def lines_of(file: BinaryIO) -> list[str]:
    """All lines with something in them, as text."""
    file.seek(0)
    lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def record_in(line: str) -> dict[str, Any] | None:
    """The line as a record, None if it is no JSON object."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:  # cut off when it was killed
        return None
    return found if isinstance(found, dict) else None
