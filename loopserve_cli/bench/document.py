"""What `bench turns` found, as data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loopserve_cli.bench.options import TurnsOptions
from loopserve_cli.bench.timing import Timing


def document(
    options: TurnsOptions, environment: Mapping[str, Any], timings: Sequence[Timing], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole run as JSON types."""
    return {
        "command": {"name": "bench turns", "argv": sys.argv[1:], "options": asdict(options)},
        "environment": dict(environment),
        "records": [asdict(timing) for timing in timings],
        "summary": dict(summary),
    }
