"""What of a replay is still to be run: all of it, or what an earlier process did not come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from loopserve_cli.config import ReplayOptions
from loopserve_cli.measure.progress import DialogueTurn
from loopserve_cli.replay.script import Script
from loopserve_cli.stats import TurnRecord

# A dialogue under a profile in a repeat.
Pass = tuple[str, str, int]


def missing_passes(options: ReplayOptions, scripts: Sequence[Script], kept: Iterable[TurnRecord]) -> dict[Pass, int]:
    """The passes that are to run, each with how many of its turns were measured, from the first on without a gap.

    A pass ends with a turn that failed, which was measured as well.
    """
    measured: dict[Pass, list[TurnRecord]] = {}
    for record in kept:
        measured.setdefault((record.conversation_id or "", record.profile or "", record.repeat or 0), []).append(record)
    found: dict[Pass, int] = {}
    for script, one in _passes(options, scripts):
        records = measured.get(one, [])
        done = {record.turn for record in records}
        first = next(turn for turn in range(1, len(script.exchanges) + 2) if turn not in done)
        if first <= len(script.exchanges) and not any(record.error for record in records):
            found[one] = first - 1
    return found


def turns_to_do(scripts: Sequence[Script], missing: Mapping[Pass, int]) -> Counter[DialogueTurn]:
    """How often each turn is to be run and measured."""
    by_id = {script.id: script for script in scripts}
    return Counter(
        (dialogue, turn)
        for (dialogue, _, _), done in missing.items()
        for turn in range(first_measured(by_id[dialogue], done), len(by_id[dialogue].exchanges) + 1)
    )


def first_measured(script: Script, done: int) -> int:
    """The turn that a pass is measured from, when so many of its turns are there: a live history begins anew."""
    return done + 1 if script.history == "recorded" else 1


def _passes(options: ReplayOptions, scripts: Sequence[Script]) -> Iterable[tuple[Script, Pass]]:
    for repeat in range(1, options.repeat + 1):
        for script in scripts:
            for name in options.names:
                yield script, (script.id, name, repeat)
