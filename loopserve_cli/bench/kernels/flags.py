"""The flags of `bench kernels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loopserve_cli.bench.kernels.options import KernelsOptions


def kernels_flags(
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Where to run; auto is CUDA, then CPU.")
    ] = "auto",
    keys: Annotated[str | None, typer.Option(metavar="N,N", help="Keys, e.g. 4k,16k. [default: by device]")] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="N,all", help="New rows, e.g. 64,512,all. [default: by device]")
    ] = None,
    density: Annotated[
        str | None, typer.Option(metavar="P,P", help="Percents of the entries, e.g. 2,10. [default: by device]")
    ] = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", help="How often all run. [default: by device]")] = None,
    heads: Annotated[int | None, typer.Option(metavar="N", help="Query heads. [default: by device]")] = None,
    groups: Annotated[int | None, typer.Option(metavar="N", help="Key-value heads. [default: by device]")] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="The head size. [default: by device]")] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="float32|float16|bfloat16", help="Number format. [default: by device]")
    ] = None,
    objective: Annotated[
        str, typer.Option(metavar="lines|optimal|latency", help="What choosing makes small.")
    ] = "latency",
    seed: Annotated[int, typer.Option(metavar="N", help="Other tensors, lines and dialogues.")] = 0,
    budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For all timings; what does not fit is left out. [default: by device]"),
    ] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage/--no-coverage", help="Also measure what chosen lines hold, over all rows.")
    ] = True,
    coverage_tokens: Annotated[
        str, typer.Option(metavar="N,N", help="Lengths of the demo model's dialogues for it.")
    ] = "4096,16384",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the gains; needs the extra loopserve[plot].")
    ] = None,
) -> KernelsOptions:
    """What to time; the options check the flags."""
    return KernelsOptions(
        device=device,
        keys=keys,
        rows=rows,
        density=density,
        rounds=rounds,
        heads=heads,
        groups=groups,
        size=size,
        dtype=dtype,
        objective=objective,
        seed=seed,
        budget=budget,
        coverage=coverage,
        coverage_tokens=coverage_tokens,
        plot=plot,
    )
