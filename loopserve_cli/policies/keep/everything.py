"""Full attention while decoding."""

from __future__ import annotations

from loopserve_cli.policies.keep.base import Seen


class Everything:
    """Every key is read."""

    window = 0
    interval = None
    accumulates = False
    first_full = False

    def select(self, seen: Seen) -> None:
        """Nothing is left out."""
