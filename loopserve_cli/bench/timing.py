"""Raw timings, and what they say: medians with their spread, ratios, and whether the outputs agree."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

OURS = "loopserve"
# The variant whose answers mean nothing, see floor.py.
FLOOR = "attention for free"


@dataclass(frozen=True, slots=True)
class Timing:
    """One turn of one variant: `ttft_ms` to the first token id on the host, `itl_ms` the gaps after it.

    `task` is "prompt" (all in one turn) or "dialogue"; `round` and `turn` count from 1.
    """

    tokens_new: int
    tokens_cached: int
    ttft_ms: float
    itl_ms: list[float]
    output_ids: list[int]
    variant: str = ""
    task: str = ""
    round: int = 0
    turn: int = 0
    tpot_ms: float | None = None
    density: float | None = None
    coverage: float | None = None
    select_ms: float | None = None

    def labelled(self, variant: str, task: str, number: int, turn: int) -> Timing:
        """The timing with its place in the run, and its time per output token when it has two."""
        tpot = statistics.fmean(self.itl_ms) if self.itl_ms else None
        return replace(self, variant=variant, task=task, round=number, turn=turn, tpot_ms=tpot)


def timing_of(started: float, stamps: Sequence[float], output_ids: list[int], new: int, cached: int) -> Timing:
    """A timing from `time.perf_counter` stamps, one per output token."""
    gaps = [(later - earlier) * 1e3 for earlier, later in zip(stamps, stamps[1:], strict=False)]
    return Timing(new, cached, (stamps[0] - started) * 1e3, gaps, output_ids)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    known = sorted(values)
    return {"median": statistics.median(known), "low": known[0], "high": known[-1]}


def summarise(timings: Sequence[Timing]) -> dict[str, Any]:
    """The prompt by variant, the dialogue by turn and variant, and the first difference in tokens.

    A ratio is a variant's time over ours in the same round, so above 1 ours is faster; it is None for ours.
    """
    prompt = [t for t in timings if t.task == "prompt"]
    talk = [t for t in timings if t.task == "dialogue"]
    return {
        "prompt": _by_variant(prompt),
        "dialogue": [
            {"turn": turn, "variants": _by_variant([t for t in talk if t.turn == turn])}
            for turn in sorted({t.turn for t in talk})
        ],
        "first_difference": first_difference(timings),
    }


def _by_variant(timings: Sequence[Timing]) -> dict[str, Any]:
    ours = {t.round: t for t in timings if t.variant == OURS}
    rows: dict[str, Any] = {}
    for name in sorted({t.variant for t in timings}, key=lambda name: (name != OURS, name)):
        of_name = [t for t in timings if t.variant == name]
        row: dict[str, Any] = {"tokens_new": of_name[0].tokens_new, "tokens_cached": of_name[0].tokens_cached}
        for measure in ("ttft_ms", "tpot_ms"):
            row[measure] = spread(getattr(t, measure) for t in of_name)
            ratios = [getattr(t, measure) / getattr(ours[t.round], measure) for t in of_name]
            row[measure.replace("_ms", "_ratio")] = None if name == OURS else spread(ratios)
        for measure in ("density", "coverage", "select_ms"):
            known = [getattr(t, measure) for t in of_name if getattr(t, measure) is not None]
            row[measure] = spread(known) if known else None
        rows[name] = row
    return rows


def first_difference(timings: Sequence[Timing]) -> dict[str, Any] | None:
    """Where a variant's greedy tokens first part from ours, by task, round and turn; None when they never do."""
    ours = {(t.task, t.round, t.turn): t for t in timings if t.variant == OURS}
    for timing in timings:
        if timing.variant == FLOOR:
            continue
        mine = ours[timing.task, timing.round, timing.turn].output_ids
        if timing.output_ids != mine:
            pairs = zip(mine, timing.output_ids, strict=False)
            same = min(len(mine), len(timing.output_ids))
            token = next((i for i, (a, b) in enumerate(pairs) if a != b), same)
            place = {"task": timing.task, "round": timing.round, "turn": timing.turn, "token": token + 1}
            return {"variant": timing.variant, **place}
    return None
