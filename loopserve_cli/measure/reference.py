"""Whom the others are compared with."""

from __future__ import annotations

from collections.abc import Sequence

FULL = "full"


def reference_of(profiles: Sequence[str]) -> str | None:
    """Full attention where it is among them, else the first; None without any."""
    return FULL if FULL in profiles else next(iter(profiles), None)
