"""What measured turns say: medians with their spread, ratios with their intervals, and whether the outputs agree.

Of a turn's record `profile` is the variant, `conversation_id` the task, "prompt" (all in one turn) or "dialogue", and
`repeat` the round.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from loopserve_cli.bench.options import OURS
from loopserve_cli.measure.fidelity import first_difference as place_of_difference
from loopserve_cli.measure.measured import Measured, share_equal
from loopserve_cli.measure.ratio import by_place, paired, place_of, ratio_of
from loopserve_cli.measure.spread import spread
from loopserve_cli.measure.verdict import Verdict, gain, verdict_of
from loopserve_cli.stats import TurnRecord

# The variant whose answers mean nothing, see floor.py.
FLOOR = "attention for free"
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
    "agreement",
)


def as_document(turn: Measured) -> dict[str, Any]:
    """A turn as JSON types: its record, its place by this benchmark's names, and its ids."""
    record = turn.record
    place = {"variant": record.profile, "task": record.conversation_id, "round": record.repeat}
    return place | record.to_json() | {"output_ids": list(turn.output_ids)}


def with_agreement(turns: Sequence[Measured], full: str | None) -> list[Measured]:
    """The turns, each with the share of its tokens that are those of the variant `full` in the same turn and round.

    None where that did not run, for itself, and for answers that mean nothing.
    """
    answers = {place_of(turn.record): turn.output_ids for turn in turns if turn.record.profile == full}

    def agreement(turn: Measured) -> float | None:
        place = place_of(turn.record)
        judged = turn.record.profile not in (full, FLOOR) and place in answers
        return share_equal(turn.output_ids, answers[place]) if judged else None

    return [replace(turn, record=replace(turn.record, agreement=agreement(turn))) for turn in turns]


def summarise(turns: Sequence[Measured], order: Sequence[str] = ()) -> dict[str, Any]:
    """The prompt by variant, the dialogue by turn and variant, and the first difference in tokens.

    A ratio is a variant's time over the baseline's in the same round, so above 1 the baseline is faster; it is None
    for the baseline. That is ours, or the first of `order`, by which the variants then stand.
    """
    records = [turn.record for turn in turns]
    order = order or [OURS, *sorted({str(r.profile) for r in records} - {OURS})]
    prompt, talk = ([r for r in records if r.conversation_id == task] for task in ("prompt", "dialogue"))
    return {
        "baseline": order[0],
        "prompt": _by_variant(prompt, order),
        "dialogue": [
            {"turn": turn, "variants": _by_variant([r for r in talk if r.turn == turn], order)}
            for turn in sorted({r.turn or 0 for r in talk})
        ],
        "agreement": {
            name: {"prompt": _mean_agreement(prompt, name), "dialogue": _mean_agreement(talk, name)} for name in order
        },
        "first_difference": first_difference(turns, order[0]),
    }


def verdicts_of(records: Sequence[TurnRecord], order: Sequence[str]) -> list[Verdict]:
    """Each variant that ran against the first, turn by turn, after the first one's own figures."""
    of = {name: [r for r in records if r.profile == name] for name in order}
    first, *rest = (name for name in order if of[name])
    against = [verdict_of(name, of[name], first, of[first], greedy=True) for name in rest]
    return [verdict_of(first, of[first], None, (), greedy=True), *against]


def verdicts_on_ours(records: Sequence[TurnRecord], order: Sequence[str]) -> list[Verdict]:
    """Ours against each other one; the ceiling is what the floor gains where that ran."""
    of = {name: [r for r in records if r.profile == name] for name in order}
    floor = of.pop(FLOOR, [])
    verdicts = [verdict_of(OURS, of[OURS], name, own, greedy=True) for name, own in of.items() if own and name != OURS]
    most = {v.against: gain(floor, of[v.against or ""], "ttft_ms") for v in verdicts}
    return [replace(v, ceiling=ratio.ratio) if (ratio := most[v.against]) is not None else v for v in verdicts]


def _mean_agreement(records: Iterable[TurnRecord], variant: str) -> float | None:
    known = [r.agreement for r in records if r.profile == variant and r.agreement is not None]
    return statistics.fmean(known) if known else None


def _by_variant(records: Sequence[TurnRecord], order: Sequence[str]) -> dict[str, Any]:
    of = {name: [r for r in records if r.profile == name] for name in order}
    return {name: _row(own, None if name == order[0] else of[order[0]]) for name, own in of.items() if own}


def _row(own: Sequence[TurnRecord], baseline: Sequence[TurnRecord] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"tokens_new": own[0].tokens_new, "tokens_cached": own[0].tokens_cached}
    for measure in ("ttft", "tpot"):
        times = by_place(own, f"{measure}_ms")
        ratios = {} if baseline is None else paired(times, by_place(baseline, f"{measure}_ms"))
        interval = ratio_of(ratios)
        row[f"{measure}_ms"] = spread(times.values())
        row[f"{measure}_ratio"] = spread(ratios.values())
        row[f"{measure}_interval"] = None if interval is None else asdict(interval)
    row |= {measure: spread(getattr(r, measure) for r in own) for measure in MEASURES}
    return row | {"rest_ms": spread(map(rest_ms, own))}


def rest_ms(record: TurnRecord) -> float | None:
    """What of the TTFT is neither attention nor choosing; None where those are not measured."""
    if record.ttft_ms is None or record.attention_ms is None or record.select_ms is None:
        return None
    return record.ttft_ms - record.attention_ms - record.select_ms


def first_difference(turns: Sequence[Measured], reference: str = OURS) -> dict[str, Any] | None:
    """Where a variant's greedy tokens first part from the reference's, by task, round and turn; None if never."""
    expected = {place_of(turn.record): turn.output_ids for turn in turns if turn.record.profile == reference}
    for turn in turns:
        place, variant = place_of(turn.record), turn.record.profile
        token = None if variant == FLOOR else place_of_difference(expected[place], turn.output_ids)
        if token is not None:
            where = {"task": place.dialogue, "round": place.repeat, "turn": place.turn, "token": token + 1}
            return {"variant": variant, **where}
    return None
