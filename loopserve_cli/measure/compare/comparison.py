"""Two runs, turn by turn: which turns both have, what changed in them, and what else is not the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.compare.change import Change, Figure, Pair, change_of
from loopserve_cli.measure.compare.other import Other, others, some
from loopserve_cli.measure.compare.past_run import PastRun
from loopserve_cli.measure.interval import Place
from loopserve_cli.measure.ratio import place_of
from loopserve_cli.measure.reference import FULL
from loopserve_cli.profile import parted
from loopserve_cli.stats import TurnRecord


@dataclass(frozen=True, slots=True)
class Comparison:
    """A later run against an earlier one, the baseline.

    `names` are the earlier profiles' names by the later ones' with which they are compared. `turns` are counted for
    each profile and repeat: those of both, those that only one has, and those of other input in each. `others` is what
    is not the same of the two runs; `changes` has one for each profile that both have, in the later run's order.
    """

    baseline: PastRun
    run: PastRun
    names: Mapping[str, str]
    turns: int
    only_before: int
    only_now: int
    other_input: int
    others: tuple[Other, ...]
    changes: tuple[Change, ...]

    @property
    def beside(self) -> str | None:
        """The profile beside which times are compared as well; None where both runs lack it."""
        return FULL if self.names.get(FULL) == FULL else None

    def to_json(self) -> dict[str, Any]:
        """As JSON types; the runs themselves by name."""
        fields = ("turns", "only_before", "only_now", "other_input")
        return {
            "baseline": self.baseline.name,
            "run": self.run.name,
            **{name: getattr(self, name) for name in fields},
            "beside": self.beside,
            "not_the_same": [asdict(other) for other in self.others],
            "profiles": {change.profile: asdict(change) for change in self.changes},
        }


def paired_names(before: Sequence[str], now: Sequence[str]) -> dict[str, str]:
    """The earlier profile by the later one: the same name, else the only other one of its kind with other settings."""
    found = {name: name for name in now if name in before}
    left_before = [name for name in before if name not in now]
    left_now = [name for name in now if name not in before]
    for name in left_now:
        alike = [other for other in left_before if parted(other)[0] == parted(name)[0]]
        if len(alike) == 1 and sum(parted(other)[0] == parted(name)[0] for other in left_now) == 1:
            found[name] = alike[0]
    return {name: found[name] for name in now if name in found}


def check_common(baseline: PastRun, profiles: Sequence[str], places: Iterable[Place]) -> None:
    """Raise UsageError where a run of these profiles on these turns would have no turn in common with the baseline."""
    names = paired_names(baseline.profiles, profiles)
    if not names:
        there, here = ", ".join(baseline.profiles), ", ".join(profiles)
        raise UsageError(f"{baseline.name}: no profile in common: there {there}, here {here}")
    before = {place_of(record) for record in baseline.records if record.profile in names.values()}
    if not before.intersection(places):
        dialogues = some(sorted({place.dialogue for place in before}))
        raise UsageError(f"{baseline.name}: no turn in common; it holds turns of {dialogues}")


def compare_runs(baseline: PastRun, run: PastRun) -> Comparison:
    """The later run against the earlier; with no turn in common there are no changes, see `check_common`."""
    names = paired_names(baseline.profiles, run.profiles)
    before, now = _by_profile(baseline.records), _by_profile(run.records)
    tried = {name: (before[names[name]], now[name]) for name in names}
    unlike = {name: _other_input(*sides, _changed_dialogues(baseline, run)) for name, sides in tried.items()}
    pairs = {name: _pair(*sides, unlike[name]) for name, sides in tried.items()}
    greedy = baseline.greedy is not False and run.greedy is not False
    reference = pairs.get(FULL) if names.get(FULL) == FULL else None
    changes = [
        change_of((name, names[name]), pair, reference if name != FULL else None, greedy)
        for name, pair in pairs.items()
        if pair.now
    ]
    common = {name: was.keys() & is_now.keys() for name, (was, is_now) in tried.items()}
    return Comparison(
        baseline,
        run,
        names,
        turns=sum(len(common[name] - unlike[name]) for name in names),
        only_before=sum(len(was.keys() - common[name]) for name, (was, _) in tried.items()),
        only_now=sum(len(is_now.keys() - common[name]) for name, (_, is_now) in tried.items()),
        other_input=sum(map(len, unlike.values())),
        others=tuple(others(baseline, run, names)),
        changes=tuple(changes),
    )


Turns = dict[Place, TurnRecord]


def _by_profile(records: Iterable[TurnRecord]) -> dict[str, Turns]:
    found: dict[str, Turns] = {}
    for record in records:
        found.setdefault(record.profile or "n/a", {})[place_of(record)] = record
    return found


def _changed_dialogues(baseline: PastRun, run: PastRun) -> set[str]:
    """Dialogues that both have under one name, and that are not the same."""
    was, now = (one.facts.get("dialogues") or {} for one in (baseline, run))
    return {name for name in now if name in was and was[name] != now[name]}


def _other_input(before: Turns, now: Turns, changed: set[str]) -> set[Place]:
    """Of dialogues that changed, the turns that were given another number of tokens: another text, or history."""
    return {
        place
        for place in before.keys() & now.keys()
        if place.dialogue in changed
        and (before[place].tokens_new, before[place].tokens_cached) != (now[place].tokens_new, now[place].tokens_cached)
    }


def _pair(before: Turns, now: Turns, unlike: set[Place]) -> Pair:
    """The turns of both that ended well in both."""
    places = [place for place in before if place in now and place not in unlike]
    well = [place for place in places if before[place].error is None and now[place].error is None]
    failed = Figure(*(float(sum(of[place].error is not None for place in places)) for of in (before, now)))
    return Pair([before[place] for place in well], [now[place] for place in well], failed)
