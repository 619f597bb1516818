"""Many who are compared: our engine under every profile asked for, and transformers' `generate`, on one dialogue.

All stand in one process over the same weights (transformers on a copy), an engine with a store of its own for each
profile, and run round by round. A made-up dialogue goes on from what each variant answered; in a bundled one every
variant sees the recorded answers, as in a replay, and its own are measured and taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loopserve_cli.bench.contest import check_room
from loopserve_cli.bench.forms import FORMS, generate_forms
from loopserve_cli.bench.generate import load_rival
from loopserve_cli.bench.options import RIVALS, SYNTHETIC, TurnsOptions
from loopserve_cli.bench.ours import Loopserve
from loopserve_cli.bench.recorded import RecordedTurn, recorded_turns
from loopserve_cli.bench.rounds import Rewinding, time_recorded, time_rounds
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.bench.timing import Timing
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.reference import FULL
from loopserve_cli.profile import Profile, load_profile

if TYPE_CHECKING:
    from loopserve_cli.engine.loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Comparison:
    """The variants and what they are asked: a prompt that is cut into turns, or a recorded dialogue's turns.

    `order` is how they are shown, the baseline first; `exact` those who attend to everything, so must answer alike.
    """

    variants: list[Rewinding]
    prompt: list[int]
    recorded: list[RecordedTurn]
    order: tuple[str, ...]
    exact: tuple[str, ...]
    device: str
    dtype: str

    def run(self, options: TurnsOptions, say: Callable[[str], None]) -> list[Timing]:
        """Every timing of every round, not yet compared."""
        new, rounds = options.new_tokens, options.rounds
        if self.recorded:
            return time_recorded(self.variants, self.recorded, new, rounds, say)
        return time_rounds(self.variants, self.prompt, new, options.turns, rounds, say, answer_tokens=new)


def profiles_compared(options: TurnsOptions) -> list[Profile]:
    """The profiles, `against` among them where it is one; raises UsageError when two cannot be told apart."""
    joins = () if options.against is None or options.against in RIVALS else (options.against,)
    profiles = [load_profile(name) for name in dict.fromkeys((*options.profiles, *joins))]
    names = [profile.name for profile in profiles]
    twice = next((name for name in names if names.count(name) > 1 or name in FORMS), None)
    if twice is not None:
        raise UsageError(f"two variants would be called {twice!r}; rename a profile's file")
    return profiles


def open_comparison(options: TurnsOptions, profiles: Sequence[Profile], say: Callable[[str], None]) -> Comparison:
    """Load the model, and again for transformers where that is asked for.

    Raises ModelError, and UsageError when the context, or `--tokens`, is too short for the dialogue.
    """
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import load

    loaded = replace(load(options.model, say), stop_ids=frozenset())
    recorded = [] if options.dialogue == SYNTHETIC else bundled_turns(options, loaded)
    prompt = recorded[-1].ids if recorded else synthetic_prompt(options, loaded)
    engines = [Engine(loaded, profile) for profile in profiles]
    variants: list[Rewinding] = [Loopserve(engine, engine.profile.name) for engine in engines]
    exact = [profile.name for profile in profiles if profile.attends_to_everything]
    if options.against in RIVALS:
        say("loading the same weights again for transformers, with SDPA")
        model = load_rival(options.model, loaded)
        forms = generate_forms(model, len(prompt) + options.new_tokens, options.compile, say)
        variants += forms
        exact += [form.name for form in forms]
    if recorded:
        for variant in variants:
            if not variant.rewinds:
                say(f"{variant.name}: its cache cannot take an answer back, so it runs only the prompt at once")
    order = baseline_first(variant.name for variant in variants)
    return Comparison(variants, prompt, recorded, order, tuple(exact), engines[0].device, engines[0].dtype)


def baseline_first(names: Iterable[str]) -> tuple[str, ...]:
    """Full attention in our engine first where it is there; the others in their order."""
    return tuple(sorted(names, key=lambda name: name != FULL))


def synthetic_prompt(options: TurnsOptions, loaded: LoadedModel) -> list[int]:
    """The made-up dialogue; raises UsageError when it and its answers do not fit into the context."""
    assert options.tokens is not None
    check_room(loaded, options.tokens, options.turns * options.new_tokens)
    return prompt_ids(loaded.tokenizer, options.tokens)


def bundled_turns(options: TurnsOptions, loaded: LoadedModel) -> list[RecordedTurn]:
    """The bundled dialogue's turns; raises UsageError when they do not fit into the context, or none into --tokens."""
    turns = recorded_turns(loaded.tokenizer, options.dialogue, options.tokens)
    needed = len(turns[-1].ids) + options.new_tokens
    if loaded.context_limit is not None and needed > loaded.context_limit:
        raise UsageError(
            f"--dialogue {options.dialogue} with its last answer is {needed} tokens, but {loaded.name} reads at most "
            f"{loaded.context_limit}; shorten it with --tokens"
        )
    return turns
