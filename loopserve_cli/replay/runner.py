"""Replays dialogues, variant after variant, and keeps what each turn measured.

Order. Within a repeat the variants take turns dialogue by dialogue, and who goes first rotates with dialogue and
repeat: A B, B A, A B ... A machine that slows down or warms up then does so for all of them alike. In the first repeat
`full` goes first where it is among them: the others are compared with what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.rounds import rotated
from loopserve_cli.replay.missing import Pass, first_measured
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.variant import Variant, Watcher

Around = Callable[[Script, int], AbstractContextManager[None]]


@contextmanager
def nothing_around(script: Script, repeat: int) -> Iterator[None]:
    """What there is to do before and after a dialogue without a local engine."""
    yield


class Runner:
    """One replay. `measured` holds every turn that ended, also when the run is interrupted."""

    def __init__(
        self,
        variants: Sequence[Variant],
        scripts: Sequence[Script],
        repeats: int,
        watcher: Watcher,
        missing: Mapping[Pass, int],
        keep: Callable[[Measured], None],
        around: Around = nothing_around,
    ) -> None:
        """Measure nothing yet.

        `missing` says what is to run, `keep` is given every turn as soon as it is over, and `around` a dialogue of a
        repeat, under all variants, is what it holds.
        """
        self.variants = variants
        self.scripts = scripts
        self.repeats = repeats
        self.watcher = watcher
        self.measured: list[Measured] = []
        self._missing = missing
        self._keep = keep
        self._around = around

    def warm_up(self) -> None:
        """One tiny turn under each variant, unrecorded."""
        for variant in self.variants:
            variant.warm_up()

    def run(self) -> None:
        """Every repeat of every dialogue under every variant, in the order the module describes."""
        for repeat in range(1, self.repeats + 1):
            for index, script in enumerate(self.scripts):
                with self._around(script, repeat):
                    for variant in self._order(repeat, index):
                        self._pass(script, variant, repeat)

    def _pass(self, script: Script, variant: Variant, repeat: int) -> None:
        """One dialogue under one variant, as far as it is missing."""
        done = self._missing.get((script.id, variant.name, repeat))
        if done is None:
            return
        self.watcher.begin(script, variant, repeat)
        for turn in variant.dialogue(script, repeat, first_measured(script, done)):
            self.measured.append(turn)
            self._keep(turn)
            self.watcher.ended(turn.record)

    def _order(self, repeat: int, index: int) -> list[Variant]:
        """The variants as they go over the dialogue of that index in that repeat."""
        order = rotated(self.variants, repeat - 1 + index)
        if repeat == 1:
            order.sort(key=lambda variant: not variant.goes_first)
        return order
