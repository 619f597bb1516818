"""What `loopserve compare` was asked for, and its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from loopserve_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The runs, the first being the baseline, and how the comparison is shown."""

    runs: tuple[Path, ...]
    json: bool = False
    markdown: bool = False
    fail_if: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be compared, or shown."""
        if len(self.runs) < 2:
            raise UsageError("one run has nothing to be compared with; give the earlier one first: compare DIR DIR")
        if self.markdown and self.json:
            raise UsageError("--markdown shows the table alone; drop it, or --json")


def compare_flags(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR DIR...",
            help="Folders of `replay --out`, the earlier run first; a records.jsonl, or the document of `replay "
            "--json`, stands for one.",
        ),
    ],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help="Exit with 3 when this holds of a later run, e.g. 'kl_mean > 2 * baseline.kl_mean', or worse: any "
            "profile's times, KL or keys read got worse beyond noise; worse_beside_full takes times beside full's. "
            "Repeatable.",
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table for an issue or a README.")] = False,
) -> CompareOptions:
    """Which runs, and how the comparison is shown."""
    return CompareOptions(tuple(runs), markdown=markdown, fail_if=tuple(fail_if or ()))
