"""The package stays one that a newcomer finds through: short files, each named by what it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES = 300
VAGUE = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}


@pytest.mark.parametrize("folder", ["loopserve_cli", "kernels/loopserve_kernels"])
def test_no_file_is_long_and_none_has_a_name_that_says_nothing(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert len(files) > 50
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    assert {path.name for path in files} & VAGUE == set()
