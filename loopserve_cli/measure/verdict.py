"""What a profile gained and what it cost, against another on the same turns. Unknown is None, never invented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from loopserve_cli.measure.ratio import Ratio, by_place, geometric_mean, paired, place_of, ratio_of
from loopserve_cli.measure.reference import reference_of
from loopserve_cli.measure.spread import median
from loopserve_cli.stats import ENDPOINT, TurnRecord, spread_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """One profile's figures, and what they are beside those of `against`, None for that profile itself.

    `first_token` and `next_tokens` are how many times faster: the other's TTFT and TPOT over this one's. `ceiling` is
    what TTFT could gain if the other's attention cost nothing. `ttft_ms` and `tpot_ms` are medians over all turns. Keys
    and bytes (KV store and working set, allocated) are those of the turn that stored the most keys, medians over its
    repeats. `same_answers` of `answers` are the other's, word for word; None when sampling.
    """

    profile: str
    against: str | None
    first_token: Ratio | None = None
    next_tokens: Ratio | None = None
    ceiling: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    keys_read: float | None = None
    keys_stored: float | None = None
    kv_bytes: float | None = None
    kl_mean: float | None = None
    same_answers: int | None = None
    answers: int | None = None

    @property
    def same_share(self) -> float | None:
        """The share of answers that are the other's."""
        return None if self.same_answers is None or not self.answers else self.same_answers / self.answers

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """A verdict as a document's summary holds it; what this version does not know is dropped."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        ratios = {name: Ratio(**known[name]) for name in ("first_token", "next_tokens") if known.get(name)}
        return cls(**{**known, **ratios})


def verdicts(records: Sequence[TurnRecord], greedy: bool = True) -> list[Verdict]:
    """One for each profile, in the order they were measured, but that which the others are compared with first."""
    names = list(dict.fromkeys(record.profile or "n/a" for record in records))
    against = reference_of(names)
    of = {name: [r for r in records if (r.profile or "n/a") == name and r.error is None] for name in names}
    order = sorted(names, key=lambda name: name != against)
    return [
        verdict_of(name, of[name], None if name == against else against, of[against or name], greedy) for name in order
    ]


def verdict_of(
    profile: str, own: Sequence[TurnRecord], against: str | None, other: Sequence[TurnRecord], greedy: bool
) -> Verdict:
    """A profile's turns beside the other's; without `against` only the profile's own figures."""
    keys_read, keys_stored, kv_bytes = _at_the_longest(own)
    same, answers = _same_answers(own, other) if greedy and against is not None else (None, None)
    compared, kl = against is not None, spread_of(own, "kl_mean")
    return Verdict(
        profile,
        against,
        first_token=gain(own, other, "ttft_ms") if compared else None,
        next_tokens=gain(own, other, "tpot_ms") if compared else None,
        ceiling=ceiling(own, other) if compared else None,
        ttft_ms=median(r.ttft_ms for r in own),
        tpot_ms=median(r.tpot_ms for r in own),
        keys_read=keys_read,
        keys_stored=keys_stored,
        kv_bytes=kv_bytes,
        kl_mean=kl.mean if compared and kl is not None else None,
        same_answers=same,
        answers=answers,
    )


def gain(own: Iterable[TurnRecord], other: Iterable[TurnRecord], measure: str) -> Ratio | None:
    """How many times shorter a time is than the other's on the same dialogue, turn and repeat."""
    return ratio_of(paired(by_place(other, measure), by_place(own, measure)))


def ceiling(own: Sequence[TurnRecord], other: Sequence[TurnRecord]) -> float | None:
    """What the other's TTFT gains without the time of its attention, over the turns that are compared.

    None where the attention of one of them was not timed, and for a server: it is bound by another engine.
    """
    if any(record.device == ENDPOINT for record in own):
        return None
    places = by_place(own, "ttft_ms").keys()
    whole = {place: time for place, time in by_place(other, "ttft_ms").items() if place in places}
    timed = [r for r in other if r.attention_ms is not None and r.ttft_ms is not None and r.attention_ms < r.ttft_ms]
    rest = {
        place_of(r): r.ttft_ms - r.attention_ms for r in timed if r.ttft_ms is not None and r.attention_ms is not None
    }
    if not whole or not whole.keys() <= rest.keys():
        return None
    return geometric_mean(paired(whole, rest))


def _at_the_longest(records: Sequence[TurnRecord]) -> tuple[float | None, float | None, float | None]:
    """Keys read, keys stored and bytes of the turn that stored the most."""
    stored = [r for r in records if r.keys_stored is not None]
    if not stored:
        return None, None, median(map(kv_bytes_of, records))
    place = place_of(max(stored, key=lambda r: r.keys_stored or 0))
    there = [r for r in stored if (r.conversation_id or "", r.turn or 0) == (place.dialogue, place.turn)]
    return median(r.keys_read for r in there), median(r.keys_stored for r in there), median(map(kv_bytes_of, there))


def kv_bytes_of(record: TurnRecord) -> int | None:
    """What the dialogue's keys and values take, on the device and the host; None where a part is unknown."""
    parts = (record.kv_store_device_bytes, record.kv_store_host_bytes, record.working_set_bytes)
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _same_answers(own: Sequence[TurnRecord], other: Sequence[TurnRecord]) -> tuple[int | None, int | None]:
    """How many answers, thoughts with them, are the other's, and of how many; unknown without any text."""
    said = {place_of(r): (r.reasoning_text, r.output_text) for r in other if r.output_text is not None}
    pairs = [
        (said[place_of(r)], (r.reasoning_text, r.output_text))
        for r in own
        if r.output_text is not None and place_of(r) in said
    ]
    return (sum(left == right for left, right in pairs), len(pairs)) if pairs else (None, None)
