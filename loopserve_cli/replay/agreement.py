"""How far a profile's greedy answers are those of full attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loopserve_cli.stats import TurnRecord

REFERENCE = "full"


@dataclass(frozen=True, slots=True)
class Measured:
    """A turn's record with the ids of its output tokens."""

    record: TurnRecord
    output_ids: tuple[int, ...] = ()


def share_equal(left: Sequence[int], right: Sequence[int]) -> float | None:
    """The share of places that hold the same token, over the longer of the two; None when both are empty."""
    longer = max(len(left), len(right))
    if not longer:
        return None
    return sum(a == b for a, b in zip(left, right, strict=False)) / longer


def with_agreement(turns: Sequence[Measured], greedy: bool) -> list[TurnRecord]:
    """The records, each with its agreement with full attention on the same turn of the same repeat.

    Unknown (None) for full attention itself, where it was not replayed or failed, and when sampling.
    With live histories an early difference changes all later turns; that counts too.
    """
    reference = {_key(t.record): t.output_ids for t in turns if t.record.profile == REFERENCE and not t.record.error}
    records = []
    for turn in turns:
        record = turn.record
        full = reference.get(_key(record))
        if greedy and full is not None and record.profile != REFERENCE and record.error is None:
            record = replace(record, agreement=share_equal(turn.output_ids, full))
        records.append(record)
    return records


def _key(record: TurnRecord) -> tuple[str | None, int | None, int | None]:
    return record.conversation_id, record.repeat, record.turn
