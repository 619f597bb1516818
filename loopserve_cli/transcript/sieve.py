"""Keeps the good records of a file: what is wrong with the others is said in one line, or refuses the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from loopserve_cli.errors import TranscriptError
from loopserve_cli.transcript.place import Place, RecordError

NAMED_PLACES = 5
NAMED_CAUSES = 3


class Sieve:
    """Puts bad records aside; with `strict` the first one's error goes on to the caller."""

    def __init__(self, strict: bool) -> None:
        """Nothing is put aside yet."""
        self.strict = strict
        self._bad: list[tuple[Place, RecordError]] = []

    @contextmanager
    def trying(self, places: Sequence[Place]) -> Iterator[None]:
        """Read the records at `places`, which make one dialogue: what is wrong with one takes out all of them."""
        try:
            yield
        except RecordError as error:
            if self.strict:
                raise
            self._bad += [(place, error) for place in places]

    def all_bad(self, records: int) -> TranscriptError:
        """The error for a file without a good record: what is wrong with its first one."""
        first = self._bad[0][1]
        return first if records == 1 else TranscriptError(f"{first} (none of the {records:,} records can be read)")

    def line(self, file: str, records: int) -> str | None:
        """How many of how many records were left out, which, and why; None where all are good."""
        if not self._bad:
            return None
        causes = Counter(error.cause for _, error in self._bad)
        reasons = [f"{cause} ({count:,})" for cause, count in causes.most_common(NAMED_CAUSES)]
        if len(causes) > NAMED_CAUSES:
            reasons.append(f"{len(causes) - NAMED_CAUSES:,} other reasons")
        which = _listed([place for place, _ in self._bad])
        return (
            f"{file}: {len(self._bad):,} of {records:,} records left out ({which}): {', '.join(reasons)}; "
            "--strict refuses instead"
        )


def lost_line(file: str, lost: Sequence[Iterable[str]]) -> str | None:
    """Which fields reach no prompt, of how many dialogues; `lost` has each dialogue's. None where there are none."""
    counts = Counter(name for names in lost for name in names)
    if not counts:
        return None
    fields = ", ".join(f"{name} (in {count:,} of {len(lost):,} dialogues)" for name, count in counts.most_common())
    return f"{file}: left out of the prompts: {fields}"


def _listed(places: Sequence[Place]) -> str:
    """The first places, such as "lines 2, 7 and 9 more"."""
    noun = "line" if places[0].line is not None else "item"
    numbers = sorted(place.line or place.item or 0 for place in places)
    named = ", ".join(map(str, numbers[:NAMED_PLACES]))
    more = f" and {len(numbers) - NAMED_PLACES:,} more" if len(numbers) > NAMED_PLACES else ""
    return f"{noun}{'s' if len(numbers) > 1 else ''} {named}{more}"
