"""Density over dialogues: every head of a model, at every length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from loopserve_cli.bench.quality.density import HeadDensity, sample_rows
from loopserve_cli.bench.quality.options import DensityOptions
from loopserve_cli.bench.quality.questions import dialogue_ids, planted_dialogue

if TYPE_CHECKING:
    from rich.console import Group

    from loopserve_cli.bench.quality.reader import Reader


def mean_density(runs: Sequence[HeadDensity]) -> HeadDensity:
    """One head's density over a few dialogues; lines are counted in whole ones."""
    means = {f.name: fmean(getattr(run, f.name) for run in runs) for f in fields(HeadDensity)}
    whole = {name: round(means[name]) for name in ("layer", "head", "verticals", "slashes")}
    return HeadDensity(**means | whole)  # type: ignore[arg-type]


class DensityRun:
    """What was measured so far: every head at every length."""

    name = "density"

    def __init__(self, options: DensityOptions, reader: Reader, say: Callable[[str], None]) -> None:
        """Nothing yet; `say` hears after every dialogue."""
        self.options = options
        self.reader = reader
        self.say = say
        self.found: dict[int, list[HeadDensity]] = {}

    def measure(self, length: int) -> None:
        """A few dialogues of one length, each on rows of its own."""
        seed, dialogues = self.options.seed, self.options.dialogues
        runs = []
        for index in range(dialogues):
            ids = dialogue_ids(planted_dialogue(seed, length, index, self.reader).turns, self.reader)
            rows = sample_rows(len(ids), torch.Generator().manual_seed(seed + index))
            runs.append(self.reader.densities(ids, rows, self.options.alpha))
            self.found[length] = [mean_density(heads) for heads in zip(*runs, strict=True)]
            self.say(f"{length} tokens: density of {index + 1} of {dialogues} dialogues")

    def to_json(self) -> dict[str, Any]:
        """Means over the heads, then every head."""
        shares = ("entries", "lines", "cheapest")
        return {
            "alpha": self.options.alpha,
            "density": [
                {
                    "length": length,
                    **{name: fmean(getattr(head, name) for head in heads) for name in shares},
                    "heads": [asdict(head) for head in heads],
                }
                for length, heads in self.found.items()
            ],
        }

    def tables(self) -> list[Group]:
        """One table."""
        from loopserve_cli.bench.quality.tables import density_table

        return [density_table(self.found, self.options.alpha)]
