"""`--baseline DIR`: this run against an earlier one, which is read and checked before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loopserve_cli.config import ReplayOptions
from loopserve_cli.measure.compare.comparison import Comparison, check_common, compare_runs
from loopserve_cli.measure.compare.past_run import PastRun, facts_of, read_run, told_in
from loopserve_cli.measure.fingerprint import plain
from loopserve_cli.measure.interval import Place
from loopserve_cli.replay.book import Book, fingerprints
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from loopserve_cli.replay.script import Script

THIS = "this run"


def read_baseline(options: ReplayOptions) -> PastRun | None:
    """The earlier run, None where none is asked for; raises UsageError."""
    return None if options.baseline is None else read_run(options.baseline)


def check_baseline(baseline: PastRun | None, profiles: Sequence[str], scripts: Sequence[Script], repeats: int) -> None:
    """Raise UsageError where the run that is about to begin will have no turn in common with the earlier one."""
    if baseline is not None:
        places = (
            Place(script.id, repeat, turn)
            for script in scripts
            for repeat in range(1, repeats + 1)
            for turn in range(1, len(script.exchanges) + 1)
        )
        check_common(baseline, profiles, places)


def against_baseline(
    baseline: PastRun | None,
    options: ReplayOptions,
    scripts: Sequence[Script],
    records: Sequence[TurnRecord],
    environment: Mapping[str, Any],
    book: Book,
) -> Comparison | None:
    """What this run's turns are against the earlier ones; None without a baseline."""
    if baseline is None:
        return None
    begun = told_in(book.path) if book.path and book.begun else {}
    told = {"fingerprints": plain(fingerprints(options, scripts)), **begun, "environment": environment}
    facts = facts_of(told, records)
    return compare_runs(baseline, PastRun(THIS, tuple(records), facts, options.sampling.temperature == 0))
