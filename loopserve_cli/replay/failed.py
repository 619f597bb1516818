"""Records as a replay ends them: with what the engine does not know, also of a turn that did not end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.stats import TurnRecord


class Loaded(Protocol):
    """What an engine, or who speaks for it, says of the model that it loaded."""

    @property
    def model_name(self) -> str:
        """As it was asked for."""

    @property
    def device(self) -> str:
        """By name."""

    @property
    def dtype(self) -> str:
        """Of the weights."""


def completed(
    record: TurnRecord, options: ReplayOptions, profile: str, repeat: int, versions: Mapping[str, str]
) -> TurnRecord:
    """The record with what the replay knows and the engine does not."""
    return replace(
        record,
        profile=profile,
        repeat=repeat,
        quant=record.quant or options.model.quant,
        seed=record.seed if record.seed is not None else options.sampling.seed,
        versions=record.versions or dict(versions),
    )


def failed_turn(loaded: Loaded, dialogue: str, turn: int, why: str, left: int) -> TurnRecord:
    """The record of a turn that did not end, before so many that are not run; what was not measured is None."""
    unrun = f" ({left} later turn{'s' if left > 1 else ''} not run)" if left else ""
    return TurnRecord(
        conversation_id=dialogue,
        turn=turn,
        model=loaded.model_name,
        device=loaded.device,
        dtype=loaded.dtype,
        error=why + unrun,
    )
