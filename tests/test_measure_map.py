"""The packages' maps: whoever looks for where something is measured or computed reads it in one place."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import loopserve_cli.measure
import loopserve_cli.replay


@pytest.mark.parametrize("package", [loopserve_cli.measure, loopserve_cli.replay], ids=["measure", "replay"])
def test_the_map_has_a_line_for_every_file_and_no_other(package: ModuleType) -> None:
    folder = Path(str(package.__file__)).parent
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    there |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    first_words = [line.split()[0] for line in (package.__doc__ or "").splitlines() if line.startswith("  ")]
    assert sorted(first_words) == sorted(there)
