"""What a turn yields, in order: prefill progress, tokens, and one `TurnDone` at the end."""

from __future__ import annotations

from dataclasses import dataclass

from loopserve_cli.stats import TurnRecord


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """`done` of `total` new tokens have been prefilled; the first, with none done, comes before any work.

    Between the layers of a long chunk, `done` counts what was computed in tokens' worth of work.
    """

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Token:
    """One output token. `text` is what it adds to the answer: empty while a character is unfinished or held back.

    With `reasoning` it is thought and no answer: `text` is then what it adds to the reasoning.
    """

    id: int
    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The turn's end. `record.finish_reason` is "stop", "stop_string", "length", "context" or "cancelled"."""

    record: TurnRecord


Event = PrefillProgress | Token | TurnDone
