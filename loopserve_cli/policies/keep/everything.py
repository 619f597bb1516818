"""Full attention while decoding."""

from __future__ import annotations

from collections.abc import Iterable

from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow


class Everything(KeepPolicy):
    """Every key is read."""

    def leaves_out(self, keys: int) -> bool:
        """Never."""
        return False

    def choose(self, windows: Iterable[ScoringWindow]) -> list[Keys]:
        """Nothing is ever left out, so nobody asks."""
        raise AssertionError("every key is read")
