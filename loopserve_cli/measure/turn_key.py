"""Which turn of a run a record is of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from loopserve_cli.stats import TurnRecord


@dataclass(frozen=True, slots=True)
class TurnKey:
    """Dialogue, profile, repeat and turn: each of them is measured once in a run."""

    conversation_id: str | None
    profile: str | None
    repeat: int | None
    turn: int | None

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TurnKey:
        """Read back; raises KeyError where a part is missing."""
        return cls(data["conversation_id"], data["profile"], data["repeat"], data["turn"])


def key_of(record: TurnRecord) -> TurnKey:
    """The record's turn."""
    return TurnKey(record.conversation_id, record.profile, record.repeat, record.turn)
