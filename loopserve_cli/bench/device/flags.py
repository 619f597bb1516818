"""The flags of `bench device`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loopserve_cli.bench.device.options import DeviceOptions
from loopserve_cli.bench.device.stages import STAGES


def device_flags(
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="What to qualify; auto is CUDA, then the CPU.")
    ] = "auto",
    part: Annotated[
        int | None, typer.Option(metavar="1|2|3", help="A third of the stages, at most nine minutes; else all.")
    ] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help=f"Only these: {', '.join(s.name for s in STAGES)}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Everything as small as can be: does it run at all?")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Results, one JSON per stage; what is there already is not run again."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Run nothing: show what --out holds, of whatever machine it is.")
    ] = False,
    write_costs: Annotated[
        bool, typer.Option("--write-costs", help="Have the engine go by what this machine costs, from now on.")
    ] = False,
    costs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write these costs to a file instead, or add them to it.")
    ] = None,
) -> DeviceOptions:
    """What to run; the options check the flags."""
    return DeviceOptions(
        device=device,
        part=part,
        stages=tuple(name.strip() for name in stages.split(",")) if stages is not None else (),
        quick=quick,
        out=out,
        show=show,
        costs=own_costs() if costs is None and write_costs else costs,
    )


def own_costs() -> Path:
    """The file that the engine reads first."""
    from loopserve_cli.policies.prefill.device_costs import own_file

    return own_file()
