"""One profile at one budget: the answers it gave, and how much it left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from loopserve_cli.bench.quality.accuracy import Tally, tally_of
from loopserve_cli.bench.quality.answers import Answer, Scored
from loopserve_cli.bench.quality.questions import Question
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import Profile, load_profile
from loopserve_cli.stats import TurnRecord

# An answer's first token comes from the prefill, the next 16 from loopserve's first interval, which reads everything.
SHORT_ANSWER = 17


@dataclass(frozen=True, slots=True)
class CountedAnswer(Answer):
    """An answer with what it took. `question` is its number in the run.

    `compressed` counts those of its `tokens` that came from a step that read chosen keys only.
    """

    question: int
    tokens: int
    compressed: int
    reselections: int
    keys_read: int
    keys_stored: int


@dataclass(slots=True)
class Combination(Scored):
    """A profile at a budget (None: it has none) over dialogues of one length."""

    name: str
    budget: int | None
    length: int
    profile: Profile
    answers: list[CountedAnswer] = field(default_factory=list)

    def add(self, question: int, asked: Question, record: TurnRecord) -> None:
        """Count one answer by its record."""
        self.answers.append(
            CountedAnswer(
                asked=asked,
                got=record.output_text if record.finish_reason == "stop" else None,
                question=question,
                tokens=record.tokens_output or 0,
                compressed=compressed_tokens(self.profile, record),
                reselections=record.reselections or 0,
                keys_read=record.keys_read or 0,
                keys_stored=record.keys_stored or 0,
            )
        )

    @property
    def long(self) -> Tally:
        """Questions of any kind whose right answer goes on beyond what loopserve's first interval reads in full."""
        return tally_of(a.right for a in self.answers if a.asked.answer_tokens > SHORT_ANSWER)

    @property
    def compressed_share(self) -> float | None:
        """Of the tokens answered, the share that came from a step that read chosen keys only."""
        return share(self.answers, lambda a: a.compressed, lambda a: a.tokens)

    @property
    def read_share(self) -> float | None:
        """Of the keys stored, the share that the answers' last steps read."""
        return share(self.answers, lambda a: a.keys_read, lambda a: a.keys_stored)

    def same_as(self, other: Combination) -> Tally:
        """Answers that are word for word the other's, right or wrong; both were asked the same."""
        theirs = {answer.question: answer.got for answer in other.answers}
        return tally_of(answer.got == theirs[answer.question] for answer in self.answers)

    def to_json(self, full: Combination | None) -> dict[str, Any]:
        """Every count, and what was answered wrongly by the question's number."""
        return {
            "profile": self.name,
            "budget": self.budget,
            "length": self.length,
            **self.counts(),
            "turns": {str(turn): tally.to_json() for turn, tally in self.turns.items()},
            "long": self.long.to_json(),
            "same_as_full": None if full is None else self.same_as(full).to_json(),
            "tokens": sum(a.tokens for a in self.answers),
            "tokens_compressed": sum(a.compressed for a in self.answers),
            "answers_compressed": sum(a.compressed > 0 for a in self.answers),
            "reselections": sum(a.reselections for a in self.answers),
            "keys_read_mean": fmean(a.keys_read for a in self.answers) if self.answers else None,
            "keys_stored_mean": fmean(a.keys_stored for a in self.answers) if self.answers else None,
            "mistakes": {str(a.question): a.got for a in self.answers if not a.right},
        }


def compressed_tokens(profile: Profile, record: TurnRecord) -> int:
    """How many of the answer's tokens came from a step that read chosen keys only.

    The first token comes from the prefill. Where the profile reads everything in its first interval, so do as many
    steps; with fewer stored keys than the budget all of them do.
    """
    if not record.left_keys_out or record.tokens_output is None:
        return 0
    settings = profile.keep.settings
    whole = settings["interval"] if settings.get("first") == "full" else 0
    return max(0, record.tokens_output - 1 - whole)


def share(
    answers: Sequence[CountedAnswer], part: Callable[[CountedAnswer], int], whole: Callable[[CountedAnswer], int]
) -> float | None:
    """The answers' parts over their wholes, or None when there is nothing."""
    total = sum(map(whole, answers))
    return sum(map(part, answers)) / total if total else None


def combinations(names: Sequence[str], budgets: Sequence[int], length: int) -> list[Combination]:
    """Every profile at every budget; a profile without a budget once. Raises UsageError for what cannot be measured."""
    found = []
    for name in names:
        profile = load_profile(name)
        if profile.retain["tier"] == "evict":
            raise UsageError(f"{name} evicts, so it cannot be asked again from the same state; give another tier")
        if "budget" not in profile.keep.settings:
            found.append(Combination(name, None, length, profile))
            continue
        for budget in budgets:
            found.append(Combination(name, budget, length, profile.with_overrides([f"keep.budget={budget}"])))
    return found
