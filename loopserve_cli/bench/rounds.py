"""What every variant of `bench turns` does in every round: the prompt at once, then the dialogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from loopserve_cli.bench.recorded import RecordedTurn
from loopserve_cli.conversation import common_prefix
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.rounds import in_rounds


class Variant(Protocol):
    """One way to run the model. `name` is shown; `dialogues` says whether it also runs a dialogue that grows."""

    name: str
    dialogues: bool
    rewinds: bool

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""

    def turn(self, ids: list[int], new_tokens: int) -> Measured:
        """Answer the dialogue `ids`, feeding only what is not held yet; its record says nothing of its place yet."""

    def rewind(self, length: int) -> int:
        """Hold only the first `length` tokens, or fewer where it lost some, and say how many; only if it `rewinds`."""

    def feed(self, ids: list[int]) -> None:
        """Hold `ids`, one or more, after what is held, without answering."""


def time_rounds(
    variants: Sequence[Variant],
    prompt: list[int],
    new_tokens: int,
    turns: int,
    rounds: int,
    say: Callable[[str], None],
    answer_tokens: int | None = None,
) -> list[Measured]:
    """Every turn of every round: the prompt, and the same as a dialogue of so many turns.

    The dialogue's answers have `answer_tokens`, by default `new_tokens`.
    """

    def play(variant: Variant, number: int) -> list[Measured]:
        return dialogue(variant, prompt, turns, answer_tokens or new_tokens, number) if variant.dialogues else []

    return _time(variants, prompt, new_tokens, play, rounds, say)


def time_recorded(
    variants: Sequence[Variant],
    turns: Sequence[RecordedTurn],
    new_tokens: int,
    rounds: int,
    say: Callable[[str], None],
) -> list[Measured]:
    """As `time_rounds`, with a recorded dialogue, and all of its last turn as the prompt.

    A variant that cannot take an answer back runs only the prompt.
    """

    def play(variant: Variant, number: int) -> list[Measured]:
        if not variant.rewinds:
            return []
        say(f"{variant.name}: {len(turns)} turns")
        return recorded_dialogue(variant, turns, new_tokens, number)

    return _time(variants, turns[-1].ids, new_tokens, play, rounds, say)


def _time(
    variants: Sequence[Variant],
    prompt: list[int],
    new_tokens: int,
    play: Callable[[Variant, int], list[Measured]],
    rounds: int,
    say: Callable[[str], None],
) -> list[Measured]:
    """A variant that has run gives its memory back before the next one starts."""

    def measure(order: list[Variant], number: int) -> list[Measured]:
        found: list[Measured] = []
        for variant in order:
            found.append(answered(variant, prompt, new_tokens, "prompt", number, 1))
            variant.reset()
        for variant in order:
            found += play(variant, number)
            variant.reset()
        return found

    return in_rounds(variants, rounds, measure, say)


def answered(variant: Variant, ids: list[int], new_tokens: int, task: str, number: int, turn: int) -> Measured:
    """A turn of a variant, its record with its place in the run."""
    found = variant.turn(ids, new_tokens)
    record = replace(found.record, profile=variant.name, conversation_id=task, repeat=number, turn=turn)
    return replace(found, record=record)


def dialogue(variant: Variant, prompt: list[int], turns: int, new_tokens: int, number: int) -> list[Measured]:
    """The prompt said in equal turns, each answered, and the answer kept."""
    cuts = [len(prompt) * turn // turns for turn in range(turns + 1)]
    ids: list[int] = []
    found = []
    for turn in range(turns):
        ids = ids + prompt[cuts[turn] : cuts[turn + 1]]
        found.append(answered(variant, ids, new_tokens, "dialogue", number, turn + 1))
        ids = ids + list(found[-1].output_ids)
    return found


def recorded_dialogue(variant: Variant, turns: Sequence[RecordedTurn], new_tokens: int, number: int) -> list[Measured]:
    """Every turn answered, the answer taken back whole, and the recorded one fed in its place, in nobody's time."""
    said: list[int] = []
    found = []
    for turn, now in enumerate(turns, start=1):
        history = now.ids[: now.history]
        held = variant.rewind(common_prefix(said, history))
        if held < len(history):
            variant.feed(history[held:])
        found.append(answered(variant, now.ids, new_tokens, "dialogue", number, turn))
        said = now.ids
    return found
