"""The order of a benchmark: every variant in every round, the first to go changing from round to round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from loopserve_cli.bench.timing import Timing

ANSWER_TOKENS = 16


class Variant(Protocol):
    """One way to run the model. `name` is shown; `dialogues` says whether it also runs the growing dialogue."""

    name: str
    dialogues: bool

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""

    def turn(self, ids: list[int], new_tokens: int) -> Timing:
        """Answer the dialogue `ids`, feeding only what is not held yet; times and output, not yet labelled."""


def time_rounds(
    variants: Sequence[Variant],
    prompt: list[int],
    new_tokens: int,
    turns: int,
    rounds: int,
    say: Callable[[str], None],
) -> list[Timing]:
    """Every timing of every round. Round 0 warms up at full size and is not returned.

    A variant that has run gives its memory back before the next one starts.
    """
    timings: list[Timing] = []
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warm-up: one round, not recorded")
        start = number % len(variants)
        order = [*variants[start:], *variants[:start]]
        found: list[Timing] = []
        for variant in order:
            found.append(variant.turn(prompt, new_tokens).labelled(variant.name, "prompt", number, 1))
            variant.reset()
        for variant in order:
            if variant.dialogues:
                found += dialogue(variant, prompt, turns, min(new_tokens, ANSWER_TOKENS), number)
                variant.reset()
        timings += found if number else []
    return timings


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
