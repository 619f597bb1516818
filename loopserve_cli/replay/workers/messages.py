"""What a worker tells while it works. All of it can be pickled, and no message is needed to read another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopserve_cli.measure.measured import Measured

if TYPE_CHECKING:
    from loopserve_cli.engine.identity import Identity


@dataclass(frozen=True, slots=True)
class Loading:
    """What is done before the first turn, in a line."""

    line: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is there; what an engine says of itself, and where it is (`environment.describe`, the node's name)."""

    identity: Identity
    device: str
    model_name: str
    dtype: str
    environment: dict[str, Any]
    node: str


@dataclass(frozen=True, slots=True)
class Idle:
    """It is warm, or done with a dialogue, and waits for the next."""


@dataclass(frozen=True, slots=True)
class Doing:
    """Which dialogue it is at, under which profile, and what the turn is doing."""

    what: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn is over."""

    turn: Measured


@dataclass(frozen=True, slots=True)
class LeftOut:
    """So many last turns of the dialogue are not run in this pass, because one before them failed."""

    turns: int


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should not miss."""

    line: str


@dataclass(frozen=True, slots=True)
class Broke:
    """What ends the whole run: the model does not load, or the program is wrong."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Gone:
    """The last of a worker: it has ended, and this is why. Its pool says so, for it cannot."""

    reason: str


Message = Loading | Loaded | Idle | Doing | Ended | LeftOut | Warned | Broke | Gone
