"""The doctor's findings, gathered and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopserve_cli.doctor.check import Check, gib
from loopserve_cli.doctor.costs import cost_check
from loopserve_cli.doctor.defaults import defaults_check, defaults_document
from loopserve_cli.doctor.fits import HEADROOM, Fit, fits
from loopserve_cli.doctor.hardware import (
    Gpu,
    disk_check,
    driver_version,
    find_gpus,
    gpu_checks,
    memory_check,
    triton_check,
)
from loopserve_cli.doctor.software import bitsandbytes_check, software_checks
from loopserve_cli.errors import LoopserveError
from loopserve_cli.output import CleanConsole

MAIN_MEMORY = "main memory"
COLOURS = {"ok": "green", "note": "yellow", "problem": "bold red"}


def run(as_json: bool) -> int:
    """Check everything and print it; 0 when chat can run, else 1."""
    checks = list(software_checks())
    gpus: list[Gpu] = []
    if not any(check.status == "problem" for check in checks):
        gpus = find_gpus()
        checks += device_checks(gpus)
    checks += [memory_check(), defaults_check()]
    where = f"GPU {gpus[0].index}" if gpus else MAIN_MEMORY
    memory = gpus[0].free_bytes if gpus else psutil.virtual_memory().available
    well = all(check.status != "problem" for check in checks)
    if as_json:
        print(json.dumps(document(well, checks, where, memory), indent=2))
    else:
        show(CleanConsole(), checks, where, memory)
    return 0 if well else 1


def device_checks(gpus: Sequence[Gpu]) -> Iterator[Check]:
    """What needs torch and transformers to be there."""
    import torch
    from huggingface_hub import constants

    yield from gpu_checks(list(gpus), driver_version(), torch.version.cuda)
    yield triton_check(list(gpus))
    yield bitsandbytes_check("cuda" if gpus else "cpu")
    yield cost_check("cuda:0", "bfloat16") if gpus else cost_check("cpu", "float32")
    yield disk_check(Path(constants.HF_HUB_CACHE))
    yield demo_check()


def demo_check() -> Check:
    """Whether the demo model loads and answers: the whole path that chat takes."""
    from loopserve_cli.config import ModelOptions, SamplingOptions
    from loopserve_cli.conversation import Conversation
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.events import TurnDone
    from loopserve_cli.engine.loader import load
    from loopserve_cli.profile import load_profile

    try:
        engine = Engine(load(ModelOptions(), lambda _: None), load_profile("full"))
        events = list(Conversation(engine).ask("Hello.", SamplingOptions(max_new_tokens=8)))
    except (LoopserveError, RuntimeError, OSError) as error:
        return Check("demo model", "problem", f"does not answer: {error}", "loopserve chat --debug shows more")
    done = events[-1]
    tokens = done.record.tokens_output if isinstance(done, TurnDone) else None
    return Check("demo model", "ok", f"answers on {engine.device}, {engine.dtype} ({tokens} tokens)")


def document(well: bool, checks: Sequence[Check], where: str, memory: int) -> dict[str, object]:
    """Everything found, as JSON types."""
    return {
        "command": "doctor",
        "ok": well,
        "checks": [asdict(check) for check in checks],
        "defaults": defaults_document(),
        "fits": {"in": where, "memory_bytes": memory, "models": [asdict(fit) for fit in fits(memory)]},
    }


def show(console: Console, checks: Sequence[Check], where: str, memory: int) -> None:
    """The findings, then what fits."""
    for check in checks:
        line = Text(f"{check.status:<8}", COLOURS[check.status])
        line.append(f"{check.name:<13} {check.found}", "default")
        console.print(line, soft_wrap=True)
        if check.advice:
            console.print(Text(f"{'':<22}-> {check.advice}"), soft_wrap=True)
    title = f"\nWhat fits into {gib(memory)} of {where}, {HEADROOM:.0%} left free (estimates)"
    console.print(Text(title), soft_wrap=True)
    console.print(fits_table(fits(memory)))
    if where == MAIN_MEMORY:
        console.print(
            Text("On a CPU without fast bfloat16 the default is float32, twice bf16; --dtype bfloat16 gives this.")
        )


def fits_table(rows: Sequence[Fit]) -> Table:
    """Weights and the longest dialogue per model, plain and quantised."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for heading in ("KV / 1k tokens", "bf16 weights", "dialogue", "nf4 weights", "dialogue"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            f"{row.kv_bytes_per_1k_tokens / 2**20:.0f} MiB",
            gib(row.bf16_weight_bytes),
            tokens(row.bf16_context_tokens),
            gib(row.nf4_weight_bytes),
            tokens(row.nf4_context_tokens),
        )
    return table


def tokens(count: int | None) -> str:
    """A dialogue's length in thousands of tokens, or that there is no room."""
    return "no" if count is None else f"{count // 1000}k"
