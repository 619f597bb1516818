"""Who is compared: our engine under one profile or several, and transformers' `generate`, on one dialogue.

All stand in one process over the same weights (transformers on a copy), an engine with a store of its own for each
profile, and run round by round. A made-up dialogue goes on from what each variant answered; in a bundled one every
variant sees the recorded answers, as in a replay, and its own are measured and taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loopserve_cli.bench.forms import FORMS, generate_forms
from loopserve_cli.bench.generate import load_rival
from loopserve_cli.bench.options import OURS, RIVALS, SYNTHETIC, TurnsOptions
from loopserve_cli.bench.ours import Loopserve
from loopserve_cli.bench.recorded import RecordedTurn, recorded_turns
from loopserve_cli.bench.rounds import Variant, time_recorded, time_rounds
from loopserve_cli.bench.summary import FLOOR
from loopserve_cli.bench.text import check_room, made_up
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.reference import FULL
from loopserve_cli.profile import Profile, load_profile

if TYPE_CHECKING:
    from loopserve_cli.engine.loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Comparison:
    """The variants and what they are asked: a prompt that is cut into turns, or a recorded dialogue's turns.

    `order` is how they are shown, the baseline first; `exact` those who attend to everything, so must answer alike;
    `full` the one that is full attention, None if none is.
    """

    variants: list[Variant]
    prompt: list[int]
    recorded: list[RecordedTurn]
    order: tuple[str, ...]
    exact: tuple[str, ...]
    device: str
    dtype: str
    full: str | None = FULL

    def run(self, options: TurnsOptions, say: Callable[[str], None]) -> list[Measured]:
        """Every turn of every round, answers not yet compared."""
        new, rounds = options.new_tokens, options.rounds
        if self.recorded:
            return time_recorded(self.variants, self.recorded, new, rounds, say)
        return time_rounds(self.variants, self.prompt, new, options.turns, rounds, say, options.answer_tokens)


def open_comparison(options: TurnsOptions, say: Callable[[str], None]) -> Comparison:
    """Load the model, and again for transformers where that is asked for.

    One profile that is compared with another has the floor beside it: the engine with attention for free.
    Raises ModelError, and UsageError when the context, or `--tokens`, is too short for the dialogue.
    """
    from loopserve_cli.bench.floor import FloorEngine
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import load

    profiles = profiles_by_name(options)
    loaded = replace(load(options.model, say), stop_ids=frozenset())
    recorded = [] if options.dialogue == SYNTHETIC else bundled_turns(options, loaded)
    answers = max(options.new_tokens, options.turns * options.answer_tokens)
    prompt = recorded[-1].ids if recorded else made_up(loaded, options.tokens or 0, answers)
    engines = {name: Engine(loaded, profile) for name, profile in profiles.items()}
    variants: list[Variant] = [Loopserve(engine, name) for name, engine in engines.items()]
    exact = [name for name, profile in profiles.items() if profile.attends_to_everything]
    if options.against in RIVALS:
        say("loading the same weights again for transformers, with SDPA")
        model = load_rival(options.model, loaded)
        forms = generate_forms(model, len(prompt) + options.new_tokens, options.compile, say)
        variants += forms
        exact += [form.name for form in forms]
    elif not options.profiles:
        variants.insert(1, Loopserve(FloorEngine(loaded, [*profiles.values()][-1]), FLOOR))
    if recorded:
        for variant in variants:
            if not variant.rewinds:
                say(f"{variant.name}: its cache cannot take an answer back, so it runs only the prompt at once")
    baseline = FULL if options.profiles else OURS
    order = sorted((variant.name for variant in variants), key=lambda name: name != baseline)
    full = next((name for name, profile in profiles.items() if profile.name == FULL), None)
    engine = next(iter(engines.values()))
    return Comparison(variants, prompt, recorded, tuple(order), tuple(exact), engine.device, engine.dtype, full)


def profiles_by_name(options: TurnsOptions) -> dict[str, Profile]:
    """The profiles by what each is called here, `against` among them where it is one.

    Raises UsageError when two cannot be told apart.
    """
    joins = () if options.against is None or options.against in RIVALS else (options.against,)
    if options.profiles:
        profiles = [load_profile(name) for name in dict.fromkeys((*options.profiles, *joins))]
        named = [(profile.name, profile) for profile in profiles]
    else:
        named = [(OURS, load_profile(options.profile))]
        named += [(rival.name, rival) for rival in map(load_profile, joins)]
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1 or name in FORMS), None)
    if twice is not None and not options.profiles:
        raise UsageError(f"{twice!r} is what our side is called here; give both as --profile instead of --against")
    if twice is not None:
        raise UsageError(f"two variants would be called {twice!r}; rename a profile's file")
    return dict(named)


def bundled_turns(options: TurnsOptions, loaded: LoadedModel) -> list[RecordedTurn]:
    """The bundled dialogue's turns; raises UsageError when they do not fit into the context, or none into --tokens."""
    turns = recorded_turns(loaded.tokenizer, options.dialogue, options.tokens)
    what = f"--dialogue {options.dialogue} with its last answer"
    check_room(loaded, what, len(turns[-1].ids) + options.new_tokens, "shorten it with --tokens")
    return turns
