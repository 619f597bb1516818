"""Raw timings, and what they say: medians with their spread, ratios, and whether the outputs agree."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loopserve_cli.measure.measured import share_equal
from loopserve_cli.measure.ratio import paired
from loopserve_cli.measure.spread import spread

OURS = "loopserve"
# The variant whose answers mean nothing, see floor.py.
FLOOR = "attention for free"
# What a turn's record says of it, under the same names; None where a variant does not measure it.
MEASURES = (
    "density",
    "coverage",
    "select_ms",
    "attention_ms",
    "keys_read",
    "keys_stored",
    "kv_store_device_bytes",
    "kv_store_host_bytes",
    "working_set_bytes",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One turn of one variant: `ttft_ms` to the first token id on the host, `itl_ms` the gaps after it.

    `task` is "prompt" (all in one turn) or "dialogue"; `round` and `turn` count from 1. `agreement` is the share of
    greedy tokens equal to full attention's on the same turn of the same round, None for full attention itself.
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
    attention_ms: float | None = None
    keys_read: int | None = None
    keys_stored: int | None = None
    kv_store_device_bytes: int | None = None
    kv_store_host_bytes: int | None = None
    working_set_bytes: int | None = None
    agreement: float | None = None

    @property
    def rest_ms(self) -> float | None:
        """What of the TTFT is neither attention nor choosing; None where those are not measured."""
        if self.attention_ms is None or self.select_ms is None:
            return None
        return self.ttft_ms - self.attention_ms - self.select_ms

    def labelled(self, variant: str, task: str, number: int, turn: int) -> Timing:
        """The timing with its place in the run, and its time per output token when it has two."""
        tpot = statistics.fmean(self.itl_ms) if self.itl_ms else None
        return replace(self, variant=variant, task=task, round=number, turn=turn, tpot_ms=tpot)


def timing_of(started: float, stamps: Sequence[float], output_ids: list[int], new: int, cached: int) -> Timing:
    """A timing from `time.perf_counter` stamps, one per output token."""
    gaps = [(later - earlier) * 1e3 for earlier, later in zip(stamps, stamps[1:], strict=False)]
    return Timing(new, cached, (stamps[0] - started) * 1e3, gaps, output_ids)


def with_agreement(timings: Sequence[Timing], full: str | None) -> list[Timing]:
    """The timings, each with its agreement with the variant `full`; None where that did not run, or is not there."""
    answers = {_place(t): t.output_ids for t in timings if t.variant == full}
    return [
        replace(t, agreement=share_equal(t.output_ids, answers[_place(t)]))
        if t.variant not in (full, FLOOR) and _place(t) in answers
        else t
        for t in timings
    ]


def _place(timing: Timing) -> tuple[str, int, int]:
    return timing.task, timing.round, timing.turn


def summarise(timings: Sequence[Timing], order: Sequence[str] = ()) -> dict[str, Any]:
    """The prompt by variant, the dialogue by turn and variant, and the first difference in tokens.

    A ratio is a variant's time over the baseline's in the same round, so above 1 the baseline is faster; it is None
    for the baseline. That is ours, or the first of `order`, by which the variants then stand.
    """
    prompt = [t for t in timings if t.task == "prompt"]
    talk = [t for t in timings if t.task == "dialogue"]
    order = order or [OURS, *sorted({t.variant for t in timings} - {OURS})]
    return {
        "baseline": order[0],
        "prompt": _by_variant(prompt, order),
        "dialogue": [
            {"turn": turn, "variants": _by_variant([t for t in talk if t.turn == turn], order)}
            for turn in sorted({t.turn for t in talk})
        ],
        "agreement": {
            name: {"prompt": _mean_agreement(prompt, name), "dialogue": _mean_agreement(talk, name)} for name in order
        },
        "first_difference": first_difference(timings, order[0]),
    }


def _mean_agreement(timings: Iterable[Timing], variant: str) -> float | None:
    known = [t.agreement for t in timings if t.variant == variant and t.agreement is not None]
    return statistics.fmean(known) if known else None


def _by_variant(timings: Sequence[Timing], order: Sequence[str]) -> dict[str, Any]:
    baseline = [t for t in timings if t.variant == order[0]]
    rows: dict[str, Any] = {}
    for name in order:
        of_name = [t for t in timings if t.variant == name]
        if not of_name:
            continue
        row: dict[str, Any] = {"tokens_new": of_name[0].tokens_new, "tokens_cached": of_name[0].tokens_cached}
        for measure in ("ttft_ms", "tpot_ms"):
            row[measure] = spread(getattr(t, measure) for t in of_name)
            ratios = paired(*({t.round: getattr(t, measure) for t in of} for of in (of_name, baseline)))
            row[measure.replace("_ms", "_ratio")] = None if name == order[0] else spread(ratios.values())
        for measure in (*MEASURES, "rest_ms", "agreement"):
            row[measure] = spread(getattr(t, measure) for t in of_name)
        rows[name] = row
    return rows


def first_difference(timings: Sequence[Timing], reference: str = OURS) -> dict[str, Any] | None:
    """Where a variant's greedy tokens first part from the reference's, by task, round and turn; None if never."""
    expected = {_place(t): t.output_ids for t in timings if t.variant == reference}
    for timing in timings:
        if timing.variant == FLOOR:
            continue
        mine = expected[_place(timing)]
        if timing.output_ids != mine:
            pairs = zip(mine, timing.output_ids, strict=False)
            same = min(len(mine), len(timing.output_ids))
            token = next((i for i, (a, b) in enumerate(pairs) if a != b), same)
            place = {"task": timing.task, "round": timing.round, "turn": timing.turn, "token": token + 1}
            return {"variant": timing.variant, **place}
    return None
