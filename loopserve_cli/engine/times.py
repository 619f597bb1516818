"""A turn's times, from the stamps of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def times(
    stamps: Sequence[float], e2e_ms: float, prefill_began: float, prefill_ms: float, prefilled: int
) -> dict[str, Any]:
    """The record's fields that are times or rates; what needs more tokens than there were is None.

    stamps, e2e_ms and prefill_began are milliseconds since the turn was submitted, one stamp per output token.
    """
    return token_times(stamps, e2e_ms) | {
        "prefill_ms": prefill_ms,
        "first_token_ms": stamps[0] - prefill_began - prefill_ms if stamps else None,
        "prefill_tokens_per_s": prefilled / prefill_ms * 1e3 if prefilled else None,
    }


def token_times(stamps: Sequence[float], e2e_ms: float) -> dict[str, Any]:
    """What the tokens' stamps alone say, whoever generated them."""
    decode_ms = stamps[-1] - stamps[0] if len(stamps) > 1 else None
    return {
        "ttft_ms": stamps[0] if stamps else None,
        "tpot_ms": decode_ms / (len(stamps) - 1) if decode_ms is not None else None,
        "itl_ms": [later - earlier for earlier, later in zip(stamps, stamps[1:], strict=False)],
        "e2e_ms": e2e_ms,
        "decode_tokens_per_s": (len(stamps) - 1) / decode_ms * 1e3 if decode_ms else None,
    }
