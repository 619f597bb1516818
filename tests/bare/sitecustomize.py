"""First in PYTHONPATH, it makes a Python that lacks what a bare GPU machine lacks; ABSENT names it."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import os
from collections.abc import Iterable
from typing import Any

ABSENT = set(os.environ["ABSENT"].split())
find_spec = importlib.machinery.PathFinder.find_spec
find_distributions = importlib.metadata.MetadataPathFinder.find_distributions


def spec_of(cls: Any, name: str, path: Any = None, target: Any = None) -> Any:
    return None if name.partition(".")[0] in ABSENT else find_spec(name, path, target)


def distributions_of(cls: Any, context: Any = None) -> Iterable[Any]:
    if context is not None and context.name is not None and context.name.replace("-", "_") in ABSENT:
        return ()
    return find_distributions() if context is None else find_distributions(context)


importlib.machinery.PathFinder.find_spec = classmethod(spec_of)  # type: ignore[assignment]
importlib.metadata.MetadataPathFinder.find_distributions = classmethod(distributions_of)  # type: ignore[assignment]
