"""Who goes over a dialogue: the engine under a profile, or a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from loopserve_cli.engine.events import Event
from loopserve_cli.errors import first_line
from loopserve_cli.measure.measured import Measured
from loopserve_cli.replay.script import Script
from loopserve_cli.stats import TurnRecord

WARM_UP_TEXT = "Hello."
WARM_UP_TOKENS = 4


class Named(Protocol):
    """What has a name that its turns are recorded under."""

    @property
    def name(self) -> str:
        """The profile in its records."""


class Variant(Named, Protocol):
    """One way to answer, measured beside others."""

    @property
    def goes_first(self) -> bool:
        """Whether the others are compared with what it says in the first repeat, which must be there by then."""

    def warm_up(self) -> None:
        """One tiny turn, unrecorded: what is done once is done before measuring."""

    def dialogue(self, script: Script, repeat: int, first: int) -> Iterator[Measured]:
        """The dialogue's turns from number `first` on, each as it ends; one that fails is the last.

        The turns before it stand in the history as they did when they were measured.
        """


class Watcher(Protocol):
    """Who is told of the run's progress; a turn's clock stands still while its events are looked at."""

    def begin(self, script: Script, variant: Named, repeat: int) -> None:
        """A dialogue starts."""

    def event(self, event: Event) -> None:
        """Something happened within a turn."""

    def asked(self) -> None:
        """A server is about to be asked: its clock goes on, so nothing is told until it has answered."""

    def ended(self, record: TurnRecord) -> None:
        """A turn is over."""

    def advance(self, turns: int) -> None:
        """The last so many turns of the dialogue are not run."""

    def forcing(self, tokens: int) -> None:
        """So many tokens of a given answer are decoded now, which is in no timing."""

    def warn(self, line: str) -> None:
        """Something that the user should not miss."""


def failed(script: Script, turn: int, error: BaseException, left: int) -> TurnRecord:
    """The record of a turn that did not end, with `left` turns after it; what was not measured is None."""
    reason = first_line(error) or type(error).__name__
    unrun = f" ({left} later turn{'s' if left > 1 else ''} not run)" if left else ""
    return TurnRecord(conversation_id=script.id, turn=turn, error=reason + unrun)
