"""What `loopserve bench device` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.bench.device.stages import PARTS, STAGES, Stage, named
from loopserve_cli.config import check_device
from loopserve_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """The stages of a part, or those named, or all; their results go to the folder `out`, None for a new one.

    `quick` makes everything as small as it can be and still run. `costs` is the file that the cost model's
    coefficients are written to, None for none. `show` runs nothing: it reads the folder, of whatever machine.
    """

    device: str = "auto"
    part: int | None = None
    stages: tuple[str, ...] = ()
    quick: bool = False
    out: Path | None = None
    costs: Path | None = None
    show: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not there to run, and what could not be written at the end."""
        check_device("--device", self.device)
        if self.part is not None and self.part not in PARTS:
            raise UsageError(f"--part is {self.part}, but must be one of {', '.join(map(str, PARTS))}")
        if self.part is not None and self.stages:
            raise UsageError("--part and --stages both say what to run; give one of them")
        named(self.stages)
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out {self.out}: is not a folder; give one, or a name that is free")
        if self.show and (self.out is None or not self.out.is_dir()):
            raise UsageError("--show needs a folder of results; give it with --out")
        if self.costs is not None and self.costs.is_dir():
            raise UsageError(f"--costs {self.costs}: is a folder; give a file")

    @property
    def chosen(self) -> tuple[Stage, ...]:
        """The stages to run; with `costs`, those that they are computed from are among them."""
        asked = self.stages or tuple(stage.name for stage in STAGES if self.part in (None, stage.part))
        return named((*asked, "environment", "costs") if self.costs is not None else asked)
