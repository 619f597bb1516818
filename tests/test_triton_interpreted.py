"""The Triton kernels' arithmetic without a GPU: a process of its own, because the interpreter is chosen at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")


FILES = sorted(Path(__file__).parent.glob("triton_interpreted*.py"))


@pytest.mark.timeout(900)  # half a minute where nothing else runs
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_kernel_equals_its_twin(file: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=file.parent.parent
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout and "skipped" not in result.stdout
