"""The grid's time: shapes from the least work to the most, each with a share of what is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from loopserve_cli.bench.kernels.options import Grid, entries


class Plan:
    """Decides how many rounds a shape gets. A shape is foretold from the last one by its causal entries."""

    def __init__(self, grid: Grid, now: Callable[[], float] = time.perf_counter) -> None:
        """The time begins to run."""
        self.shapes = grid.shapes
        self.rounds = grid.rounds
        self._now = now
        self._ends = now() + grid.budget_s
        self._per_entry_s = 0.0  # to prepare a shape, and of one round
        self._flex_failed: str | None = None
        self._compile_s = 0.0

    def share_s(self, place: int) -> float:
        """Seconds for the shape at `place`: its part of the work still to do, but no less than an even part."""
        left = [entries(*shape) for shape in self.shapes[place:]]
        return max(0.0, self._ends - self._now()) * max(left[0] / sum(left), 1 / len(left))

    def refusal(self, place: int) -> str | None:
        """Why the shape at `place` cannot be begun: preparing it and one round are foretold to take too long."""
        foretold, share = entries(*self.shapes[place]) * self._per_entry_s, self.share_s(place)
        if share > 0 and foretold <= share:
            return None
        return f"foretold to take {foretold:.1f} s of the {share:.1f} s left for it; give a larger --budget"

    def flex_refusal(self, place: int) -> str | None:
        """Why FlexAttention may not join: it failed before, or compiling it takes half the shape's time or more."""
        share = self.share_s(place)
        if self._flex_failed is None and self._compile_s > share / 2:
            return f"FlexAttention: left out where compiling it takes more than half the time ({self._compile_s:.0f} s)"
        return self._flex_failed

    def fitting_rounds(self, round_s: float, left_s: float) -> int:
        """As many of the wanted rounds as fit; one always does, since the warm-up, of that length, is already done."""
        return max(1, min(self.rounds, int(left_s / max(round_s, 1e-9))))

    def learn(self, place: int, prepare_s: float, round_s: float, flex: str | None) -> None:
        """Foretell the next shape from this one; `flex` is why FlexAttention was not there, None if it was.

        Compiling takes as long for every shape: only what else was prepared grows with the entries.
        """
        preparing = min(prepare_s, 3 * round_s)
        self._per_entry_s = (preparing + round_s) / entries(*self.shapes[place])
        if flex is None:
            self._compile_s = prepare_s - preparing
        elif self._compile_s == 0.0:
            self._flex_failed = flex
