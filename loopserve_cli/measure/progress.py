"""How far a run is: turns, time gone and left, and what every profile measured so far. It draws nothing."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loopserve_cli.measure.ratio import by_place, paired, place_of
from loopserve_cli.measure.spread import median
from loopserve_cli.measure.turn_key import key_of
from loopserve_cli.stats import TurnRecord

# A turn of a dialogue, by the dialogue's id and the turn's number: it takes about as long in every repeat.
DialogueTurn = tuple[str, int]


@dataclass(frozen=True, slots=True)
class SoFar:
    """One profile's turns until now, and the median over the same turns of the first profile's times by its.

    A ratio of 2 is twice as fast. The times are medians over the turns that every profile has; while there is none,
    over its own. `kl` is a mean. None is unknown.
    """

    profile: str
    turns: int
    ttft_ms: float | None
    ttft_ratio: float | None
    tpot_ms: float | None
    tpot_ratio: float | None
    kl: float | None


class Progress:
    """Counts the turns of a run, of which some may have been measured before."""

    def __init__(
        self,
        profiles: Sequence[str],
        total: int,
        to_do: Mapping[DialogueTurn, int],
        kept: Iterable[TurnRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of `total` turns each is still to be run as often as `to_do` says; `clock` gives seconds."""
        self.profiles = profiles
        self.total = total
        self._records = {key_of(record): record for record in kept}
        self._to_do = Counter(to_do)
        self._took: dict[DialogueTurn, list[float]] = {}
        self._clock = clock
        self._began = self._last = clock()
        self._left: float | None = None

    def begin(self) -> None:
        """The first turn comes now: what was before is no part of any turn's time."""
        self._began = self._last = self._clock()

    @property
    def done(self) -> int:
        """The turns that are over, those that were never run because one before them failed among them."""
        return self.total - self._to_do.total()

    def ended(self, record: TurnRecord) -> None:
        """A turn is over; it took the time since the one before."""
        now = self._clock()
        place = (record.conversation_id or "", record.turn or 0)
        self._took.setdefault(place, []).append(now - self._last)
        self._records[key_of(record)] = record
        self._to_do[place] -= 1
        self._last, self._left = now, None

    def left_out(self, places: Iterable[DialogueTurn]) -> None:
        """These turns are not run, each once."""
        self._to_do.subtract(places)
        self._left = None

    def again(self, dialogue: str, to_do: Mapping[DialogueTurn, int]) -> None:
        """A dialogue is tried once more: of its turns only these are still to be run."""
        for place in [place for place in self._to_do if place[0] == dialogue]:
            del self._to_do[place]
        self._to_do.update(to_do)
        self._left = None

    def _estimate(self) -> float:
        """What is left, by what the same turns took where they ran already, and by the mean of all for others."""
        mean = statistics.fmean(seconds for row in self._took.values() for seconds in row)
        each = {place: statistics.fmean(row) for place, row in self._took.items()}
        return sum(times * each.get(place, mean) for place, times in self._to_do.items())

    @property
    def seconds_gone(self) -> float:
        """Since this began."""
        return self._clock() - self._began

    @property
    def seconds_left(self) -> float | None:
        """Counted down since the last turn ended; None before one has."""
        if not self._took:
            return None
        if self._left is None:
            self._left = self._estimate()
        return max(0.0, self._left - (self._clock() - self._last))

    def so_far(self) -> list[SoFar]:
        """Every profile's row, the first one's first; one without a turn yet has only unknowns."""
        good = [record for record in self._records.values() if record.error is None]
        of = {profile: [record for record in good if record.profile == profile] for profile in self.profiles}
        begun = [set(map(place_of, own)) for own in of.values() if own]
        common = set.intersection(*begun) if begun else set()
        return [_row(profile, own, of[self.profiles[0]], common) for profile, own in of.items()]


def _row(profile: str, own: Sequence[TurnRecord], first: Sequence[TurnRecord], shared: Container[object]) -> SoFar:
    times = [record for record in own if place_of(record) in shared] or own
    kl = [record.kl_mean for record in own if record.kl_mean is not None]

    def ratio(measure: str) -> float | None:
        return None if own is first else median(paired(by_place(first, measure), by_place(own, measure)).values())

    return SoFar(
        profile,
        len(own),
        median(record.ttft_ms for record in times),
        ratio("ttft_ms"),
        median(record.tpot_ms for record in times),
        ratio("tpot_ms"),
        statistics.fmean(kl) if kl else None,
    )
