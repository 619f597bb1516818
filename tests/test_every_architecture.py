"""docs/models.md says what is so, for every architecture of the transformers that is pinned."""

from __future__ import annotations

import pytest
import transformers
from models_table import DOCUMENT, table


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_of_models_is_true() -> None:
    """Written anew it is the same; equal or refused, there is no third state."""
    told = DOCUMENT.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}," not in told:
        pytest.skip(f"docs/models.md is of another transformers than {transformers.__version__}")
    assert table() == told
