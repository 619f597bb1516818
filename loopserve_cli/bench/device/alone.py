"""`python -m loopserve_cli.bench.device.alone STAGE DEVICE SCALE`: one stage in a process of its own.

Every record is a line of JSON on stdout as soon as it is known, so that what ran out of time has said what it knew.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any


def main(stage: str, device: str, scale: str) -> None:
    """Run it. Whatever it raises ends the process."""
    import torch

    torch.set_grad_enabled(False)  # for the whole process, which is this stage's alone
    for record in records_of(stage, torch.device(device), scale):
        print(json.dumps(record), flush=True)


def records_of(stage: str, device: Any, scale: str) -> Iterator[dict[str, Any]]:
    """The records of a stage's module."""
    module = importlib.import_module(f"loopserve_cli.bench.device.stage_{stage.replace('-', '_')}")
    yield from module.run(device, scale)


if __name__ == "__main__":
    main(*sys.argv[1:])
