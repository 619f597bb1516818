"""What a worker is told: once what the run is, then one dialogue after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loopserve_cli.config import ReplayOptions
from loopserve_cli.engine.share import Share
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.turn_key import key_of
from loopserve_cli.replay.missing import Pass, missing_passes
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.work import OpenEngine


@dataclass(frozen=True, slots=True)
class Job:
    """What all dialogues of a run share. `quiet`: warnings and log lines of other packages are not shown.

    `open_engine` must be a function of a module: a worker finds it by its name.
    """

    options: ReplayOptions
    date: str
    open_engine: OpenEngine
    share: Share
    quiet: bool

    def on(self, share: Share, dtype: str) -> Job:
        """The job of a worker on that share, its weights in that number format."""
        model = replace(self.options.model, device=share.device, dtype=dtype)
        return replace(self, options=replace(self.options, model=model), share=share)


@dataclass(frozen=True, slots=True)
class Task:
    """One dialogue under all profiles in all repeats, as far as it is `missing`; `kept` was measured before.

    `index` is the dialogue's place among all: it decides which profile goes first.
    """

    script: Script
    index: int
    missing: Mapping[Pass, int]
    kept: tuple[Measured, ...] = ()

    def after(self, ended: Sequence[Measured], options: ReplayOptions) -> Task:
        """What is left of it once these turns have ended: as an interrupted run is resumed, so is a dialogue."""
        kept = tuple({key_of(turn.record): turn for turn in [*self.kept, *ended]}.values())
        return replace(self, missing=missing_passes(options, [self.script], [t.record for t in kept]), kept=kept)


def tasks_of(scripts: Sequence[Script], missing: Mapping[Pass, int], kept: Sequence[Measured]) -> list[Task]:
    """The dialogues of which something is missing, the longest first: at the end no worker waits long for another."""
    passes: dict[str, dict[Pass, int]] = {}
    before: dict[str, list[Measured]] = {}
    for one, done in missing.items():
        passes.setdefault(one[0], {})[one] = done
    for turn in kept:
        before.setdefault(turn.record.conversation_id or "", []).append(turn)
    tasks = [
        Task(script, index, passes[script.id], tuple(before.get(script.id, ())))
        for index, script in enumerate(scripts)
        if script.id in passes
    ]
    return sorted(tasks, key=_size, reverse=True)


def _size(task: Task) -> int:
    """Letters to be read, in all passes that are missing."""
    texts = [text for exchange in task.script.exchanges for text in (exchange.user, exchange.recorded or "")]
    return len(task.missing) * sum(map(len, texts))
