"""A turn's record with what the replay knows and the engine does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.stats import TurnRecord


class Loaded(Protocol):
    """An engine, or who speaks for it."""

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
    record: TurnRecord, options: ReplayOptions, loaded: Loaded, profile: str, repeat: int, versions: Mapping[str, str]
) -> TurnRecord:
    """Also of a turn that did not end, in which no engine said anything."""
    return replace(
        record,
        profile=profile,
        repeat=repeat,
        model=record.model or loaded.model_name,
        device=record.device or loaded.device,
        dtype=record.dtype or loaded.dtype,
        quant=record.quant or options.model.quant,
        seed=record.seed if record.seed is not None else options.sampling.seed,
        versions=record.versions or dict(versions),
    )
