"""The results' folder: one JSON file per stage, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError

DONE, FAILED, LATE, SKIPPED = "done", "failed", "out of time", "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """One stage's outcome: `records` as far as it came, `reason` in a line where it did not end well.

    `status` is done, failed, out of time, or skipped. `tail` is the end of what it said.
    """

    stage: str
    status: str
    device: str
    scale: str
    seconds: float
    limit_s: float
    command: list[str]
    records: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    tail: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Records with an error in place of figures."""
        return sum("error" in record for record in self.records)


class Folder:
    """Where results are; made when the first is written."""

    def __init__(self, path: Path | None) -> None:
        """The folder given, or a new one in the current folder, named by the time."""
        self.path = path or Path(f"loopserve-device-{datetime.now():%Y%m%d-%H%M%S}")

    def file(self, stage: str) -> Path:
        """A stage's file."""
        return self.path / f"{stage}.json"

    def read(self, stage: str) -> Result | None:
        """A stage's result, None if there is none; raises UsageError for a file that is none."""
        try:
            found = json.loads(self.file(stage).read_text(encoding="utf-8"))
            return Result(**found)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.file(stage)}: cannot be read: {error.strerror}; give another --out") from None
        except (ValueError, TypeError):
            raise UsageError(f"{self.file(stage)}: is no result of bench device; give another --out") from None

    def write(self, result: Result) -> None:
        """Put a stage's file there; raises LoopserveError where the disk refuses."""
        from loopserve_cli.transcript.write import write_whole

        write_whole(self.file(result.stage), (json.dumps(asdict(result), indent=1) + "\n").encode(), overwrite=True)
