"""A pytest plugin (`-p bare_machine`): packages that a GPU machine may lack are as if they were not installed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LACKING = frozenset(
    "prompt_toolkit platformdirs bitsandbytes gguf typer rich click peft matplotlib hypothesis pytest_timeout".split()
)


class Lacking:
    """Stands in for the finder of installed packages, and finds all but those."""

    @staticmethod
    def find_spec(name: str, path: list[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in LACKING else PathFinder.find_spec(name, path, target)

    find_distributions = PathFinder.find_distributions
    invalidate_caches = PathFinder.invalidate_caches


sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking
