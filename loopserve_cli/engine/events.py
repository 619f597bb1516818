"""What a turn yields, in order: prefill progress, tokens, and one `TurnDone` at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from loopserve_cli.heads import HeadFigures
from loopserve_cli.stats import TurnRecord


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """`done` of `total` new tokens have been prefilled, `cached` were there before; `ms` since the prefill began.

    The first comes before any work, with none done. Between two layers `done` counts the part of a chunk that its
    layers so far are of all layers. `ms` is None on a GPU, which is asked for all chunks long before it is done.
    """

    done: int
    total: int
    cached: int | None = field(default=None, compare=False)
    ms: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Token:
    """One output token. `text` is what it adds to the answer: empty while a character is unfinished or held back.

    With `reasoning` it is thought and no answer: `text` is then what it adds to the reasoning. `ms` is when it came,
    since the submission: the first token's is the turn's TTFT.
    """

    id: int
    text: str
    reasoning: bool = False
    ms: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The turn's end. `record.finish_reason` is "stop", "stop_string", "length", "context" or "cancelled".

    `heads` is what the heads computed and read, where the engine keeps that and some head left something out.
    """

    record: TurnRecord
    heads: HeadFigures | None = field(default=None, compare=False)


Event = PrefillProgress | Token | TurnDone
