"""Two who are compared: our engine under a profile, and a rival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loopserve_cli.bench.forms import generate_forms
from loopserve_cli.bench.generate import load_rival
from loopserve_cli.bench.ours import Loopserve
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.bench.timing import FLOOR, OURS
from loopserve_cli.config import ModelOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.reference import FULL
from loopserve_cli.profile import Profile

if TYPE_CHECKING:
    from loopserve_cli.bench.rounds import Variant
    from loopserve_cli.engine.loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Contest:
    """The variants, the prompt they all get, and what they run on.

    `exact`: all attend to everything. `full` is the name of the one that is full attention, None if none is.
    """

    variants: list[Variant]
    prompt: list[int]
    device: str
    dtype: str
    exact: bool
    full: str | None


def open_contest(
    options: ModelOptions,
    profile: Profile,
    rival: Profile | None,
    tokens: int,
    new_tokens: int,
    answers: int,
    say: Callable[[str], None],
    compile_asked: bool = False,
) -> Contest:
    """Our engine under `profile` against itself under `rival`, or, where that is None, against transformers.

    Of two profiles, one that leaves attention out gets the floor beside it: the engine with attention for free.
    transformers gets a copy of the weights; `compile_asked` is whether its steps are compiled on a CPU too. `answers`
    is how many answer tokens a dialogue adds at most.
    Raises ModelError, and UsageError when the context is too short.
    """
    from loopserve_cli.bench.floor import FloorEngine
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import load

    loaded = load(options, say)
    check_room(loaded, tokens, max(new_tokens, answers))
    loaded = replace(loaded, stop_ids=frozenset())
    engine = Engine(loaded, profile)
    variants: list[Variant] = [Loopserve(engine)]
    if rival is None:
        say("loading the same weights again for transformers, with SDPA")
        model = load_rival(options, loaded)
        variants += generate_forms(model, tokens + new_tokens, compile_asked, say)
    else:
        variants += [Loopserve(Engine(loaded, rival), rival.name), Loopserve(FloorEngine(loaded, rival), FLOOR)]
    exact = profile.attends_to_everything and (rival is None or rival.attends_to_everything)
    full = OURS if profile.name == FULL else FULL if rival and rival.name == FULL else None
    return Contest(variants, prompt_ids(loaded.tokenizer, tokens), engine.device, engine.dtype, exact, full)


def check_room(loaded: LoadedModel, tokens: int, answers: int) -> None:
    """Refuse a synthetic dialogue that does not fit into the model's context; raises UsageError."""
    needed = tokens + answers
    if loaded.context_limit is not None and needed > loaded.context_limit:
        raise UsageError(
            f"--tokens {tokens} with its answers is {needed} tokens, but {loaded.name} reads at most "
            f"{loaded.context_limit}; give fewer"
        )
