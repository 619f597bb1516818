"""The order of a benchmark: every variant in every round, the first to go changing from round to round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from loopserve_cli.bench.recorded import RecordedTurn
from loopserve_cli.bench.timing import Timing
from loopserve_cli.conversation import common_prefix
from loopserve_cli.measure.rounds import in_rounds

ANSWER_TOKENS = 16


class Variant(Protocol):
    """One way to run the model. `name` is shown; `dialogues` says whether it also runs the growing dialogue."""

    name: str
    dialogues: bool

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""

    def turn(self, ids: list[int], new_tokens: int) -> Timing:
        """Answer the dialogue `ids`, feeding only what is not held yet; times and output, not yet labelled."""


class Rewinding(Variant, Protocol):
    """One that can take back what it answered; `rewinds` says whether it really can."""

    rewinds: bool

    def rewind(self, length: int) -> int:
        """Hold only the first `length` tokens, or fewer where it lost some; how many that is."""

    def feed(self, ids: list[int]) -> None:
        """Hold `ids`, one or more, after what is held, without answering."""


Kind = TypeVar("Kind", bound=Variant)


def time_rounds(
    variants: Sequence[Variant],
    prompt: list[int],
    new_tokens: int,
    turns: int,
    rounds: int,
    say: Callable[[str], None],
    answer_tokens: int = ANSWER_TOKENS,
) -> list[Timing]:
    """Every timing of every round: the prompt, and the same as a dialogue of so many turns.

    The dialogue's answers have at most `answer_tokens`. Round 0 warms up at full size and is not returned.
    A variant that has run gives its memory back before the next one starts.
    """

    def play(variant: Variant, number: int) -> list[Timing]:
        if not variant.dialogues:
            return []
        return dialogue(variant, prompt, turns, min(new_tokens, answer_tokens), number)

    return _in_rounds(variants, prompt, new_tokens, play, rounds, say)


def time_recorded(
    variants: Sequence[Rewinding],
    turns: Sequence[RecordedTurn],
    new_tokens: int,
    rounds: int,
    say: Callable[[str], None],
) -> list[Timing]:
    """As `time_rounds`, with a recorded dialogue, and all of its last turn as the prompt.

    A variant that cannot take an answer back runs only the prompt.
    """

    def play(variant: Rewinding, number: int) -> list[Timing]:
        if not variant.rewinds:
            return []
        say(f"{variant.name}: {len(turns)} turns")
        return recorded_dialogue(variant, turns, new_tokens, number)

    return _in_rounds(variants, turns[-1].ids, new_tokens, play, rounds, say)


def _in_rounds(
    variants: Sequence[Kind],
    prompt: list[int],
    new_tokens: int,
    play: Callable[[Kind, int], list[Timing]],
    rounds: int,
    say: Callable[[str], None],
) -> list[Timing]:
    def measure(order: list[Kind], number: int) -> list[Timing]:
        found: list[Timing] = []
        for variant in order:
            found.append(variant.turn(prompt, new_tokens).labelled(variant.name, "prompt", number, 1))
            variant.reset()
        for variant in order:
            found += play(variant, number)
            variant.reset()
        return found

    return in_rounds(variants, rounds, measure, say)


def dialogue(variant: Variant, prompt: list[int], turns: int, new_tokens: int, number: int) -> list[Timing]:
    """The prompt said in equal turns, each answered, and the answer kept."""
    cuts = [len(prompt) * turn // turns for turn in range(turns + 1)]
    ids: list[int] = []
    found = []
    for turn in range(turns):
        ids = ids + prompt[cuts[turn] : cuts[turn + 1]]
        timing = variant.turn(ids, new_tokens).labelled(variant.name, "dialogue", number, turn + 1)
        ids = ids + timing.output_ids
        found.append(timing)
    return found


def recorded_dialogue(variant: Rewinding, turns: Sequence[RecordedTurn], new_tokens: int, number: int) -> list[Timing]:
    """Every turn answered, the answer taken back whole, and the recorded one fed in its place, in nobody's time."""
    said: list[int] = []
    found = []
    for turn, now in enumerate(turns, start=1):
        history = now.ids[: now.history]
        held = variant.rewind(common_prefix(said, history))
        if held < len(history):
            variant.feed(history[held:])
        found.append(variant.turn(now.ids, new_tokens).labelled(variant.name, "dialogue", number, turn))
        said = now.ids
    return found
