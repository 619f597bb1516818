"""One replay that is to be measured, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopserve_cli.config import ReplayOptions
from loopserve_cli.measure.measured import Measured
from loopserve_cli.replay.missing import Pass
from loopserve_cli.replay.script import Script

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.replay.book import Book
    from loopserve_cli.replay.watch import Watch

OpenEngine = Callable[[ReplayOptions, Callable[[str], None]], "Engine"]
OF_ENDPOINTS = (
    "endpoints: their times hold the network and the server's queue, and their tokens may be another tokenizer's"
)
FIDELITY = (
    "fidelity: in the first repeat every turn's answer is decoded once more, in no timing (not with --no-fidelity)"
)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run, and who hears of it: `keep` of every turn that ended, `say` of what is done, in lines."""

    options: ReplayOptions
    scripts: Sequence[Script]
    missing: Mapping[Pass, int]
    open_engine: OpenEngine
    book: Book
    watch: Watch
    keep: Callable[[Measured], None]
    say: Callable[[str], None]

    def warms_up(self) -> None:
        """Say what comes now."""
        self.say("warm-up: one short turn per profile, not recorded")
        if self.options.fidelity:
            self.say(FIDELITY)
        if self.options.endpoints:
            self.say(OF_ENDPOINTS)
