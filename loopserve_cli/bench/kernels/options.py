"""What `loopserve bench kernels` was asked for, and what that means on a device."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.config import DTYPES, check_device, lengths
from loopserve_cli.errors import UsageError

OBJECTIVES = ("lines", "optimal", "latency")


@dataclass(frozen=True, slots=True)
class Layer:
    """One attention layer: query heads, key-value heads, head size, number format."""

    heads: int
    groups: int
    size: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Grid:
    """What is timed: rows (None is as many as keys) over keys, at densities; `budget_s` is for all of it."""

    rows: tuple[int | None, ...]
    keys: tuple[int, ...]
    densities: tuple[float, ...]
    rounds: int
    budget_s: float

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and keys of every shape that exists, each once, least work first."""
        asked = {(keys if rows is None else rows, keys) for rows in self.rows for keys in self.keys}
        return sorted(((rows, keys) for rows, keys in asked if rows <= keys), key=lambda shape: entries(*shape))


def entries(rows: int, keys: int) -> int:
    """Causal entries of one head: row i of n sees N - n + i + 1 keys."""
    return rows * (keys - rows) + rows * (rows + 1) // 2


LAYERS = {"cpu": Layer(4, 2, 64, "float32"), "cuda": Layer(32, 8, 128, "bfloat16")}
GRIDS = {
    "cpu": Grid((64, 512, None), (4096, 16384), (0.02, 0.1, 0.5), 3, 100),
    "cuda": Grid(
        (64, 512, 4096, None),
        (4096, 8192, 16384, 32768, 65536, 131072),
        (0.02, 0.05, 0.1, 0.2, 0.5),
        5,
        450,
    ),
}


@dataclass(frozen=True, slots=True)
class KernelsOptions:
    """The flags as given; None is the device's own default. Lists are texts, separated by commas."""

    device: str = "auto"
    keys: str | None = None
    rows: str | None = None
    density: str | None = None
    rounds: int | None = None
    heads: int | None = None
    groups: int | None = None
    size: int | None = None
    dtype: str | None = None
    objective: str = "latency"
    seed: int = 0
    budget: float | None = None
    coverage: bool = True
    coverage_tokens: str = "4096,16384"
    plot: Path | None = None
    json: bool = False

    def __post_init__(self) -> None:
        """Refuse, before torch is loaded, what no device could do."""
        check_device("--device", self.device)
        if self.dtype is not None and self.dtype not in DTYPES[1:]:
            raise UsageError(f"unknown --dtype {self.dtype!r}; choose one of {', '.join(DTYPES[1:])}")
        if self.objective not in OBJECTIVES:
            raise UsageError(f"unknown --objective {self.objective!r}; choose one of {', '.join(OBJECTIVES)}")
        for name, most in {"rounds": 1000, "heads": 1024, "groups": 1024, "size": 256}.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"--{name} is {value}, but must be from 1 to {most}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed is {self.seed}, but must be from 0 to {2**63 - 1}")
        if self.budget is not None and not self.budget > 0:
            raise UsageError(f"--budget is {self.budget:g}, but must be above 0 seconds")
        for kind in GRIDS:
            self.layer(kind)
            self.grid(kind)
        if self.coverage and min(self.tokens) < 16:
            raise UsageError(f"--coverage-tokens has {min(self.tokens)}, but a dialogue needs at least 16")
        check_plot(self.plot)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Lengths of the dialogues whose coverage is measured; none if that was not wanted."""
        return lengths("--coverage-tokens", self.coverage_tokens) if self.coverage else ()

    def layer(self, kind: str) -> Layer:
        """The layer on a "cpu" or on "cuda"."""
        own = LAYERS[kind]
        heads, groups = self.heads or own.heads, self.groups or own.groups
        if self.heads is not None and self.groups is None:
            groups = min(groups, heads)
        if heads % groups:
            raise UsageError(f"--heads {heads} is no multiple of --groups {groups}; each group has as many query heads")
        return Layer(heads, groups, self.size or own.size, self.dtype or own.dtype)

    def grid(self, kind: str) -> Grid:
        """The grid on a "cpu" or on "cuda"."""
        own = GRIDS[kind]
        grid = Grid(
            own.rows if self.rows is None else row_counts(self.rows),
            own.keys if self.keys is None else lengths("--keys", self.keys),
            own.densities if self.density is None else shares(self.density),
            self.rounds or own.rounds,
            self.budget or own.budget_s,
        )
        if not grid.shapes:
            raise UsageError(f"--rows {self.rows or 'of the default'} are all more than --keys; the keys hold the rows")
        return grid


def row_counts(text: str) -> tuple[int | None, ...]:
    """As `lengths`, or "all", which is None and stands last."""
    words = [word.strip() for word in text.split(",")]
    numbers = ",".join(word for word in words if word != "all")
    every: tuple[None, ...] = (None,) if "all" in words else ()
    return (*(lengths("--rows", numbers) if numbers or not every else ()), *every)


def shares(text: str) -> tuple[float, ...]:
    """Ascending shares from percents, "2,10,50"."""
    found = set()
    for word in text.split(","):
        try:
            percent = float(word.strip().removesuffix("%"))
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:
            raise UsageError(
                f"--density: {word.strip()!r} is no percentage above 0 up to 100; write for example 2,10,50"
            )
        found.add(percent / 100)
    return tuple(sorted(found))


def check_plot(path: Path | None) -> None:
    """Refuse a plot that could not be drawn or written, before anything is timed."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot {path}: the plot is a PNG; give a name that ends in .png")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--plot {path}: {'is a folder' if path.is_dir() else 'its folder is not there'}; give a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--plot {path}: cannot be written; check its folder's mode")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed; pip install 'loopserve[plot]'")
